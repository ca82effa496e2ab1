"""The colours of the sample images, and mixtures of them."""

Colour = tuple[int, int, int]
"""Red, green and blue, from 0 to 255."""

BLACK: Colour = (38, 38, 42)
CHARCOAL: Colour = (74, 77, 84)
GREY: Colour = (152, 156, 162)
SILVER: Colour = (196, 199, 204)
WHITE: Colour = (240, 240, 238)
CREAM: Colour = (236, 226, 203)
BEIGE: Colour = (211, 187, 152)
TAN: Colour = (184, 128, 76)
BROWN: Colour = (112, 70, 44)
GUM: Colour = (196, 150, 98)
GOLD: Colour = (212, 172, 84)
ROSE_GOLD: Colour = (216, 160, 140)
YELLOW: Colour = (240, 196, 62)
MUSTARD: Colour = (208, 156, 44)
ORANGE: Colour = (228, 122, 52)
CORAL: Colour = (236, 118, 104)
RED: Colour = (196, 40, 48)
BURGUNDY: Colour = (122, 30, 52)
PINK: Colour = (236, 158, 178)
PURPLE: Colour = (118, 82, 150)
LAVENDER: Colour = (186, 170, 214)
NAVY: Colour = (38, 52, 94)
BLUE: Colour = (58, 100, 176)
SKY: Colour = (138, 184, 222)
DENIM: Colour = (74, 104, 150)
TEAL: Colour = (36, 124, 128)
MINT: Colour = (158, 212, 186)
GREEN: Colour = (58, 128, 82)
OLIVE: Colour = (116, 118, 68)


def mix(colour: Colour, other: Colour, share: float) -> Colour:
    """Mix a colour with a share of another."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(colour, other, strict=True))
    return red, green, blue


def darker(colour: Colour, share: float = 0.3) -> Colour:
    """Mix a colour with black."""
    return mix(colour, (0, 0, 0), share)


def lighter(colour: Colour, share: float = 0.3) -> Colour:
    """Mix a colour with white."""
    return mix(colour, (255, 255, 255), share)
