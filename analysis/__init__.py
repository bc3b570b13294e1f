"""Looking at the method: arrays in, arrays and figures out. Gradio is known in its tabs only."""
