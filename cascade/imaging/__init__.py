"""Reads and writes image files, and keeps their metadata.

| file | subject |
|---|---|
| `opening.py` | open a file safely: formats, limits, errors |
| `picture_reading.py` | file to `Picture`, by the only reader; pages, and facts about a file |
| `tiff_pages.py`, `tiff_reading.py` | what a TIFF stores, checked and decoded; what it means |
| `jxl_header.py`, `truncated_jpeg.py` | what the readers of JPEG XL and JPEG do not do |
| `reading.py` | `Picture` to RGB tensor, for training and conditioning |
| `picture.py` | `Picture`: pixels with transparency, bit depth, profile and metadata |
| `pil_channels.py` | PIL image to tensors of colour and transparency |
| `picture_writing.py` | `Picture` to file |
| `writing.py` | tensor to PIL image, PNG and contact sheet |
| `kept_metadata.py` | which metadata of a picture is kept |
| `exif_blocks.py` | EXIF in memory |
| `containers.py` | where PNG, JPEG, WebP and TIFF files hold EXIF, resolution and settings |
| `orientation.py`, `resolution.py` | two fields that are applied rather than copied |
| `colour_profiles.py` | conversion to sRGB |
| `transparency.py` | colours under full transparency |
| `vips.py` | libvips, set up for untrusted files |
"""
