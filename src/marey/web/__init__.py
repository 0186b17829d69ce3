"""The web page and the HTTP API, on one FastAPI app with Gradio mounted; both call `Predictor` and
nothing else."""
