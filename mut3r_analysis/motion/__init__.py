"""Motion cues and gates: what attention says of motion, and what is then done to attention.

A **cue** turns a reading of attention into a motion score g in [0, 1] per patch, 1 = dynamic. A
**gate** turns g into an intervention at the sites of the decoder. Both are declared objects.

z are logits, p weights, i queries, j keys, M the number of keys, o = p v; LSE is the logarithm of a
row's normaliser. "exact" readings are closed forms; the others go through tiles of query rows.

=====  =========================  ============================  =========  ========
code   reading                    formula                       dynamic    cost
=====  =========================  ============================  =========  ========
R1     ``logit_key_mean``         mean_j z_ij                   low        exact
R2     ``received``               M mean_i p_ij                 low        tiles
R3     ``entropy``                -sum_j p log p / log M        high       tiles
R3a    ``peak_complement``        1 - max_j p_ij                high       tiles
R3b    ``collision_complement``   1 - sum_j p_ij^2              high       tiles
R4     ``logit_query_mean``       mean_i z_ij                   low        exact
R5     ``instability``            std over frames of R1/R2/R4   high       as these
R6     ``pose_complement``        (1 - p_i,pose) / (M - 1)      low        tiles
R7     ``logit_key_std``          std_j z_ij                    high       exact
R8     ``maxpool_similarity``     max_j z_ij                    low        tiles
--     ``gram_<a>_<b>_mean``      mean_tj <a_i, b_tj>           low        exact
--     ``gram_<a>_<b>_variance``  var_tj <a_i, b_tj>            low        exact
--     ``mask``                   a variable of the sequence    high       none
=====  =========================  ============================  =========  ========

``gram_...`` readings compare a patch's query or key with those b_tj of all patches j of the w
frames t before (``of="past(w)"``), by the means and covariances that these frames left; <a>_<b> is
``query_query``, ``key_key`` or ``query_key``.

The average of *weights* over keys is 1 / M for every query, whatever the image: a cue without
contrast, and refused.

=====  =====================  ======================================================  =============
code   realisation            what it computes                                        kernel
=====  =====================  ======================================================  =============
``image_self``: image patches read each other
---------------------------------------------------------------------------------------------------
C1     ``pair_bias``          softmax(z + beta log(1 - (1 - g_i) g_j)) v              values / dense
C2     ``key_bias``           softmax(z + beta log(1 - g_j)) v                        values / dense
C3     ``static_to_dynamic``  p v, p_ij = 0 where g_i <= tau < g_j                    values / dense
C4     ``hard``               softmax over keys with g_j <= tau                       values / dense
``state_to_image``: the state reads the image
---------------------------------------------------------------------------------------------------
B1     ``key_bias``           as C2                                                   values / dense
B2     ``key_mask``           sum_j p (1 - g_j)^beta v_j                              values / dense
B3     ``key_bias_write``     B1, and write rate x sum_j p (1 - g_j)                  values / dense
B4     ``hard``               as C4                                                   values / dense
B5     ``static_to_dynamic``  C3 with static queries                                  values / dense
``image_to_state``: the image reads the state, r = (1 - g_i)^beta
---------------------------------------------------------------------------------------------------
A0     ``literal``            softmax(z + log r) v = o: softmax cannot see it         none: inert
A1     ``output_scale``       r o                                                     fused
A2     ``postmask``           sum_j r p_ij v_j: equals A1                             tiles
A3     ``null_key``           o sigmoid(LSE + b - n); matched n: equals A1            fused + tiles
A4     ``null_value``         r o + (1 - r) mean_j v_j                                fused
A5     ``temperature``        softmax(r z) v                                          fused
A6     ``pair_state``         softmax(z + beta log(1 - g_i r_j)) v                    values / dense
A7     ``hard_skip``          o where g_i <= tau, else 0                              fused
=====  =====================  ======================================================  =============

Sites of other models have the realisations of the direction they are like: patches that read each
other those of ``image_self``, patches that are read those of ``state_to_image``, patches that read
something else those of ``image_to_state``; without B3, A3 and A6, which need a state or a pose
token. Pairs of frames have a cue and a gate of their own, :class:`PairCue` and :class:`PairGate`.

What MUT3R's paper says, and what ``Cue.mut3r`` and ``Gate.mut3r`` are in each edition:

=====================================================  =====================  =====================
the paper                                              edition 1              edition 2
=====================================================  =====================  =====================
self-attention averaged "across batch, head and key    R1, over keys          R4, over queries
dimensions": weights would be constant, so logits are
"all" decoder layers of the cue                        all                    all
"normalised" and "sigmoid", open how sharp             z-score, sharpness 1   z-score, sharpness 0.5
dynamic pairs are weakened in self-attention           C1                     C1
dynamic keys are weakened where the state reads        B1                     B1
dynamic queries are weakened where the image reads:    A1                     A6
softmax cannot see it (A0), open what stands for it
"layers 0-6" of 12                                     [0, 6) of 12, scaled   all; ``PAPER_LAYERS``
beta, open                                             1                      1
=====================================================  =====================  =====================

`14_cue_to_gain` measures what decided edition 2: readings, sharpness, realisations and layers, on
two models, where objects move and where nothing does.

"values" widens the values of one plain fused softmax and forms no query x key number outside it;
"dense" and "tiles" make a few query rows at a time. Memory is linear in tokens either way. Outputs
are gated before the site's output projection.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
