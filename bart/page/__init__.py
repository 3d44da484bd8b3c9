"""Page policies: exploration, business rules and diversity around two rankings."""
