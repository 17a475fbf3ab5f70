"""What the parties must agree on before they talk.

The schema and its encoder, the model and its scorecard, the training plan, the recipes, the messages and their
translation to Flower, the metrics, and the entry of the command line. Imports `privacy` and no other room.
"""
