"""What an estimate starts from and what it is: logged choices, slates, pages; terms; the estimate."""
