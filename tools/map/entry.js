export { Deck, LinearInterpolator, OrthographicView } from "@deck.gl/core";
export { ScatterplotLayer } from "@deck.gl/layers";
