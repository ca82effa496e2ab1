"""The colors of a map, on light and on dark pages."""

# The colors of Okabe and Ito, which color-blind readers can tell apart, without the yellow and the
# black that vanish on one of the pages, and then further hues of other lightness.
COLORS = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (213, 94, 0),
    (204, 121, 167),
    (86, 180, 233),
    (126, 87, 194),
    (153, 153, 51),
    (140, 86, 75),
    (229, 57, 113),
    (68, 190, 170),
    (120, 120, 220),
)
# Some stops of Viridis, which is even in lightness.
SCALE = (
    (68, 1, 84),
    (70, 50, 126),
    (54, 92, 141),
    (39, 127, 142),
    (31, 161, 135),
    (74, 193, 109),
    (160, 218, 57),
    (253, 231, 37),
)
OTHER = (150, 150, 148)
