"""The colors of the sample images, and mixtures of them."""

Color = tuple[int, int, int]
"""Red, green and blue, from 0 to 255."""

BLACK: Color = (38, 38, 42)
CHARCOAL: Color = (74, 77, 84)
GRAY: Color = (152, 156, 162)
SILVER: Color = (196, 199, 204)
WHITE: Color = (240, 240, 238)
CREAM: Color = (236, 226, 203)
BEIGE: Color = (211, 187, 152)
TAN: Color = (184, 128, 76)
BROWN: Color = (112, 70, 44)
GUM: Color = (196, 150, 98)
GOLD: Color = (212, 172, 84)
ROSE_GOLD: Color = (216, 160, 140)
YELLOW: Color = (240, 196, 62)
MUSTARD: Color = (208, 156, 44)
ORANGE: Color = (228, 122, 52)
CORAL: Color = (236, 118, 104)
RED: Color = (196, 40, 48)
BURGUNDY: Color = (122, 30, 52)
PINK: Color = (236, 158, 178)
PURPLE: Color = (118, 82, 150)
LAVENDER: Color = (186, 170, 214)
NAVY: Color = (38, 52, 94)
BLUE: Color = (58, 100, 176)
SKY: Color = (138, 184, 222)
DENIM: Color = (74, 104, 150)
TEAL: Color = (36, 124, 128)
MINT: Color = (158, 212, 186)
GREEN: Color = (58, 128, 82)
OLIVE: Color = (116, 118, 68)


def mix(color: Color, other: Color, share: float) -> Color:
    """Mix a color with a share of another."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(color, other, strict=True))
    return red, green, blue


def darker(color: Color, share: float = 0.3) -> Color:
    """Mix a color with black."""
    return mix(color, (0, 0, 0), share)


def lighter(color: Color, share: float = 0.3) -> Color:
    """Mix a color with white."""
    return mix(color, (255, 255, 255), share)
