"""The measures of pictures and videos. Numpy and torch; no stage of training imports the evaluator through here."""
