"""A file for each tab and each part of the page; the only place in analysis that knows Gradio."""
