"""How Django shows times and dates, by language."""
