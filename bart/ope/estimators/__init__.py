"""The tables of estimators: single choices, slates, pages."""
