"""Reads and writes image files, and keeps their metadata.

| file | subject |
|---|---|
| `opening.py` | open a file safely: formats, limits, errors |
| `picture_reading.py` | file to `Picture`, by the only reader; pages, and facts about a file |
| `tiff_pages.py`, `tiff_reading.py` | what a TIFF stores, checked and decoded; what it means |
| `jxl_header.py`, `truncated_jpeg.py` | what the readers of JPEG XL and JPEG do not do |
| `pages.py` | the pages of a TIFF and the frames of an animation, one at a time |
| `reading.py` | `Picture` to RGB tensor, for training and conditioning |
| `picture.py` | `Picture`: pixels with transparency, bit depth, profile and metadata |
| `pil_channels.py` | PIL image to tensors of colour and transparency |
| `picture_writing.py` | `Picture` to file |
| `page_writing.py` | pages and frames to one file |
| `apng.py`, `webp_animation.py`, `tiff_assembly.py` | files joined into one of several pictures |
| `writing.py` | tensor to PIL image, PNG and contact sheet |
| `metadata.py` | `Metadata`: EXIF, XMP, IPTC and texts of a picture; `Loss`: what is not kept |
| `metadata_reading.py` | file to metadata, whatever decodes the pixels |
| `kept_metadata.py`, `kept_exif.py` | which metadata of a picture is kept, and what is updated |
| `png_chunks.py`, `jpeg_segments.py`, `webp_chunks.py` | where these files hold metadata |
| `tiff_fields.py`, `heif_items.py`, `gif_blocks.py` | the same for TIFF, AVIF and HEIC, GIF |
| `extras.py` | what is added to a file besides its pixels |
| `exif_blocks.py`, `photoshop_resources.py` | EXIF and Photoshop resources in memory |
| `xmp_packets.py`, `extended_xmp.py` | XMP in memory |
| `orientation.py`, `resolution.py` | two fields that are applied rather than copied |
| `colour_profiles.py` | conversion to sRGB |
| `transparency.py` | colours under full transparency |
| `vips.py` | libvips, set up for untrusted files |
"""
