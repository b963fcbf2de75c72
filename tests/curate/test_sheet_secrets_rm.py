"""secrets-rm, what must hold of strength: what a member adds to a prompt's scores goes, what it multiplies them by goes after scaling.

Test of curate/secrets_rm.py.
"""

import numpy as np

from finegrain.curate.strength import compute_strength


def test_strength_does_not_see_a_member_s_offset_by_prompt_nor_its_unit() -> None:
    rng = np.random.default_rng(0)
    chosen, rejected = rng.normal(size=(2, 4, 50))
    offset, unit = rng.normal(size=(4, 50)), np.array([[1.0], [3.0], [0.2], [7.0]])
    plain, shifted = compute_strength(chosen - rejected), compute_strength((chosen + offset) - (rejected + offset))
    np.testing.assert_allclose(shifted.mean, plain.mean, atol=1e-12)
    np.testing.assert_allclose(shifted.std, plain.std, atol=1e-12)
    scaled = compute_strength(unit * (chosen - rejected))
    factor = scaled.mean[0] / plain.mean[0]
    np.testing.assert_allclose(scaled.mean, factor * plain.mean, rtol=1e-9)
    np.testing.assert_allclose(scaled.std, factor * plain.std, rtol=1e-9)
