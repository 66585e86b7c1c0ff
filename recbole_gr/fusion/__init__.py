"""Two trained models as one recommender: their scores made comparable, weighed and added."""
