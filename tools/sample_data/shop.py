"""The sixty product images; `sample_data/styles.csv` describes the products."""

from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image

from tools.sample_data.canvas import Drawing, Pose
from tools.sample_data.colors import (
    BEIGE,
    BLACK,
    BLUE,
    BROWN,
    BURGUNDY,
    CHARCOAL,
    CORAL,
    CREAM,
    DENIM,
    GOLD,
    GRAY,
    GREEN,
    GUM,
    LAVENDER,
    MINT,
    MUSTARD,
    NAVY,
    OLIVE,
    ORANGE,
    PINK,
    PURPLE,
    RED,
    ROSE_GOLD,
    SILVER,
    SKY,
    TAN,
    TEAL,
    WHITE,
    YELLOW,
    darker,
    mix,
)
from tools.sample_data.products import (
    backpack,
    cap,
    dress,
    handbag,
    heel,
    jeans,
    skirt,
    sneaker,
    tshirt,
    watch,
)

# Largest tilt in degrees, by the product id's first three digits; products that stand on a floor
# hardly tilt.
_MAX_TILT = {101: 4, 102: 2, 103: 3, 104: 2, 105: 1, 106: 1, 107: 1, 108: 1, 109: 5, 110: 5}
# Products with a left and a right side: shoes and caps. Every third one faces right.
_SIDED = (105, 106, 109)

PRODUCTS: dict[int, Callable[[Drawing], None]] = {
    10101: partial(tshirt, color=NAVY),
    10102: partial(tshirt, color=WHITE, stripes=RED),
    10103: partial(tshirt, color=OLIVE, pocket=True),
    10104: partial(tshirt, color=YELLOW, badge=CORAL),
    10105: partial(tshirt, color=TEAL, v_neck=True),
    10106: partial(tshirt, color=SILVER, sleeves=BLUE, band=SKY),
    10201: partial(dress, color=RED),
    10202: partial(dress, color=NAVY, dots=WHITE, belt=RED),
    10203: partial(dress, color=BLACK, hem=80, flare=20, straps=True),
    10204: partial(dress, color=MINT, belt=TAN, hem=88),
    10205: partial(dress, color=PINK, straps=True, belt=BURGUNDY, flare=26),
    10206: partial(dress, color=MUSTARD, dots=CREAM, flare=25, hem=82),
    10301: partial(jeans, color=DENIM),
    10302: partial(jeans, color=NAVY, ankle=10, fade=0.2),
    10303: partial(jeans, color=BLACK, ankle=11, fade=0.12, thread=GRAY),
    10304: partial(jeans, color=SKY, cuffs=True),
    10305: partial(jeans, color=mix(DENIM, SKY, 0.4), ripped=True, ankle=12),
    10306: partial(jeans, color=darker(DENIM, 0.3), ankle=16, fade=0.28),
    10401: partial(skirt, color=GREEN),
    10402: partial(skirt, color=BURGUNDY, checks=MUSTARD, flare=28, hem=70),
    10403: partial(skirt, color=BLACK, pleats=7),
    10404: partial(skirt, color=WHITE, trim=NAVY, pleats=11, hem=66),
    10405: partial(skirt, color=LAVENDER, hem=82, flare=28, pleats=8),
    10406: partial(skirt, color=CORAL, trim=CREAM, flare=33, hem=72, pleats=8),
    10501: partial(sneaker, color=BLUE, mark="saddle", outsole=GUM),
    10502: partial(sneaker, color=RED, high=True, rubber_toe=True, outsole=BURGUNDY),
    10503: partial(sneaker, color=WHITE, accent=MINT, mark="dots"),
    10504: partial(sneaker, color=CHARCOAL, accent=ORANGE, mark="zigzag", outsole=BLACK),
    10505: partial(sneaker, color=OLIVE, accent=TAN, sole=GUM, outsole=BROWN, laces=CREAM),
    10506: partial(sneaker, color=PINK, accent=PURPLE, mark="saddle", rubber_toe=True),
    10601: partial(heel, color=RED),
    10602: partial(heel, color=BLACK, strap=True, rise=-3),
    10603: partial(heel, color=BEIGE, rise=-5, lining=TAN),
    10604: partial(heel, color=PURPLE, platform=5, rise=2),
    10605: partial(heel, color=TEAL, bow=True, rise=-4),
    10606: partial(heel, color=GOLD, strap=True, lining=BROWN),
    10701: partial(handbag, color=TAN),
    10702: partial(handbag, color=BLACK, quilted=True, arch=20),
    10703: partial(handbag, color=BURGUNDY, flap=darker(BURGUNDY, 0.15), base=31),
    10704: partial(handbag, color=CREAM, lower=TAN, top=29, base=32),
    10705: partial(handbag, color=TEAL, metal=SILVER, top=30, base=29, arch=12),
    10706: partial(handbag, color=PINK, flap=CORAL, top=27, base=30, arch=19),
    10801: partial(backpack, color=TEAL),
    10802: partial(backpack, color=NAVY, lid=True, width=27),
    10803: partial(backpack, color=GRAY, accent=ORANGE, pocket=CHARCOAL),
    10804: partial(backpack, color=PINK, accent=PURPLE, pocket=LAVENDER, width=24),
    10805: partial(backpack, color=OLIVE, lid=True, pocket=darker(OLIVE, 0.12), base=BROWN),
    10806: partial(backpack, color=RED, accent=YELLOW, base=BLACK, width=26),
    10901: partial(cap, color=NAVY, badge=WHITE),
    10902: partial(cap, color=RED, mesh=WHITE, badge=WHITE, mark="bolt"),
    10903: partial(cap, color=BLACK, visor=RED, badge=WHITE, mark="peak"),
    10904: partial(cap, color=BEIGE, crown=-3),
    10905: partial(cap, color=GREEN, visor=YELLOW, badge=YELLOW),
    10906: partial(cap, color=SKY, visor=NAVY, mesh=NAVY, badge=NAVY, mark="peak", crown=3),
    11001: partial(watch, strap=BROWN),
    11002: partial(watch, strap=SILVER, links=True, dial=NAVY, hands=WHITE, hour=1.85),
    11003: partial(
        watch, strap=BLACK, case=CHARCOAL, dial=BLACK, hands=WHITE, subdials=True, radius=22
    ),
    11004: partial(watch, strap=ROSE_GOLD, case=ROSE_GOLD, links=True, radius=18.6),
    11005: partial(watch, strap=RED, case=GOLD, dial=CREAM, radius=18.6, hour=8.3),
    11006: partial(watch, strap=NAVY, case=GOLD, dial=WHITE, hands=NAVY, subdials=True, hour=4.7),
}


def product_image(product: int) -> Image.Image:
    """Draw a product, by its id, which also determines the pose."""
    chance = np.random.default_rng(product)
    tilt = _MAX_TILT[product // 100]
    pose = Pose(
        tilt=float(chance.uniform(-tilt, tilt)),
        zoom=float(chance.uniform(0.9, 0.98)),
        flipped=product // 100 in _SIDED and product % 3 == 0,
    )
    drawing = Drawing(product, pose)
    PRODUCTS[product](drawing)
    return drawing.finished()
