"""How often-used events behave."""

PRIVATE = {"api_visibility": "private", "show_progress": "hidden"}
"""Of what only this page asks."""

UNDOCUMENTED = {"api_visibility": "undocumented", "show_progress": "hidden"}
"""Of what a test or a script may ask too, by a name that the documentation of the endpoints leaves out."""

WATCH = PRIVATE | {"concurrency_id": "watch", "concurrency_limit": 4, "trigger_mode": "always_last"}
"""Of what looks at runs: it reads files, and must not wait for the network."""

CLICK = PRIVATE | {"trigger_mode": "multiple"}
"""Of a click: Gradio would give the last of several the place of the first."""
