"""What goes over the wire: schemas, examples, problems, JSON of pages and decisions."""
