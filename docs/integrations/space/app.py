"""The page of `cascade ui` as a Hugging Face Space."""

from cascade.ui.limits import Limits
from cascade.ui.server import Serving, serve

SERVING = Serving(
    host="0.0.0.0",
    port=7860,  # where Spaces expect a page
    limits=Limits(file_mib=20, megapixels=2, files=20, result_megapixels=32, disk_gib=10),
    most_waiting=10,
)

if __name__ == "__main__":
    serve(SERVING, print)
