"""Images of measured numbers: any bands, their numbers as they are, and the files that hold them.

A colour picture is a `Picture`; everything else is a `Raster`. A stack or a volume is several
rasters, which its file counts from 0.

| file | subject |
|---|---|
| `raster.py` | `Raster`: bands, missing numbers, and where the image comes from |
| `layout.py` | which numbers of an array or a file belong to one image |
| `origin.py`, `tiff_origin.py` | what a file says about an image besides its numbers |
| `reading.py` | file to `Raster`: recognises the format, counts the images |
| `writing.py` | images to the file of a name, as they came |
| `tiff_writing.py` | images as TIFF |
| `file_mark.py` | `FileMark`: how a trained model made a file, in the words of each format |
| `dicom_mark.py`, `nifti_mark.py` | where these two hold it |
| `recorded.py` | reads back how a file was made, of bands or of colours |
| `showing.py` | how people see bands |
| `raster_file.py` | `RasterFile`: an opened file |
| `deviation_picture.py` | how people see a standard deviation |
| `tiff_bands.py`, `dicom.py`, `nifti.py`, `arrays.py` | one kind of file each |
| `dicom_numbers.py` | what the stored numbers of DICOM stand for |
"""
