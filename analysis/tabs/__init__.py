"""One file a tab of the page; the only place in analysis that knows Gradio."""
