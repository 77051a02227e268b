"""The layer of BERT and its kin: norms behind attention and feed-forward, a bias in every product."""

from __future__ import annotations

from centra.families.description import Attention, FeedForward, Layer, Linear, Norm

__all__ = ["post_norm_layer"]


def post_norm_layer(
    *,
    hidden: int,
    inner: int,
    heads: int,
    activation: str,
    epsilon: float,
    query: str,
    key: str,
    value: str,
    output: str,
    attention_norm: str,
    feed_forward: tuple[str, str],
    feed_forward_norm: str,
) -> Layer:
    """Describe one.

    Args:
        hidden: the width of states.
        inner: that within the feed-forward.
        heads: of attention.
        activation: of the feed-forward.
        epsilon: of both norms.
        query, key, value, output, attention_norm, feed_forward_norm: what the family calls them.
        feed_forward: what it calls the two products.
    """

    def square(name: str) -> Linear:
        return Linear(name=name, inputs=hidden, outputs=hidden)

    up, down = feed_forward
    return Layer(
        hidden=hidden,
        norm_first=False,
        attention=Attention(
            heads=heads,
            query=square(query),
            key=square(key),
            value=square(value),
            output=square(output),
        ),
        attention_norm=Norm(name=attention_norm, size=hidden, epsilon=epsilon),
        feed_forward=FeedForward(
            inner=Linear(name=up, inputs=hidden, outputs=inner),
            outer=Linear(name=down, inputs=inner, outputs=hidden),
            activation=activation,
        ),
        feed_forward_norm=Norm(name=feed_forward_norm, size=hidden, epsilon=epsilon),
    )
