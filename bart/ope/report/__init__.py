"""The report of an evaluation: verdict first."""
