"""Recipes: judged by a slow reference, closed forms and replayed transcripts."""
