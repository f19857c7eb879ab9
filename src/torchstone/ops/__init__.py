"""Pure functions of tensors: no settings, no memory, no randomness.

warp   sampling images along affine maps
color  one color matrix an image
cached rows a few at a time, as many as stay in the cache
boxes  formats, IoU, GIoU, DIoU, CIoU
curves ROC and precision-recall curves and their areas, of NumPy alone: the report reads them too
"""
