"""Looking at the method: arrays in, arrays and figures out. Gradio is known in its tabs only."""

import wsss  # noqa: F401  # before torch: it says how long torch's idle threads spin
