"""RecBole's trainer made safe, and those for generation, PIT and decision trees."""
