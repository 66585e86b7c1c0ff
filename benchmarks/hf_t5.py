"""The other side of `decode_vs_huggingface`: our weights in Hugging Face's T5, its usual trie.

Vocabulary: 0 is padding and the decoder's first token, 1 the end, then the codes of all levels.
"""

import torch
from transformers import T5Config, T5ForConditionalGeneration

PADDING, END, FIRST_CODE = 0, 1, 2


def copy_into_t5(tiger):
    """A ``T5ForConditionalGeneration`` that computes what ``tiger`` (encoder_decoder) computes.

    T5 has no ``1 / sqrt(head_size)`` in its attention: the query rows are divided by the root. It
    has one untied head over the whole vocabulary, whose rows are our heads one below the other
    (those of the two special tokens are zeros).
    """
    block = tiger.decoder.blocks[0]
    attention = block.attention
    size = tiger.code_embedding.embedding_dim
    bias = tiger.decoder.bias
    config = T5Config(
        vocab_size=FIRST_CODE + tiger.code_embedding.num_embeddings,
        d_model=size,
        d_kv=attention.head_size,
        d_ff=block.feed_forward.inner.out_features,
        num_layers=len(tiger.encoder.blocks),
        num_decoder_layers=len(tiger.decoder.blocks),
        num_heads=attention.n_heads,
        relative_attention_num_buckets=bias.n_buckets,
        relative_attention_max_distance=bias.max_distance,
        dropout_rate=0.0,
        layer_norm_epsilon=block.attention_norm.eps,
        feed_forward_proj="relu",
        tie_word_embeddings=False,
        pad_token_id=PADDING,
        eos_token_id=END,
        decoder_start_token_id=PADDING,
    )
    model = T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        special = torch.zeros(1, size)
        begin = tiger.begin.unsqueeze(0)
        model.shared.weight.copy_(torch.cat([begin, special, tiger.code_embedding.weight]))
        rows = [head.weight for head in tiger.heads]
        model.lm_head.weight.copy_(torch.cat([special, special, *rows]))
        for theirs, ours in ((model.encoder, tiger.encoder), (model.decoder, tiger.decoder)):
            theirs.final_layer_norm.weight.copy_(ours.norm.weight)
            first = theirs.block[0].layer[0].SelfAttention
            first.relative_attention_bias.weight.copy_(ours.bias.weight.weight)
            for their_block, our_block in zip(theirs.block, ours.blocks):
                _copy_block(their_block.layer, our_block)
    return model


def _copy_block(layers, block):
    query, key, value = block.attention.query_key_value.weight.chunk(3)
    _copy_attention(layers[0].SelfAttention, block.attention, query, key, value)
    layers[0].layer_norm.weight.copy_(block.attention_norm.weight)
    if block.cross is not None:
        cross = block.cross
        key, value = cross.key_value.weight.chunk(2)
        _copy_attention(layers[1].EncDecAttention, cross, cross.query.weight, key, value)
        layers[1].layer_norm.weight.copy_(block.cross_norm.weight)
    layers[-1].DenseReluDense.wi.weight.copy_(block.feed_forward.inner.weight)
    layers[-1].DenseReluDense.wo.weight.copy_(block.feed_forward.outer.weight)
    layers[-1].layer_norm.weight.copy_(block.feed_forward_norm.weight)


def _copy_attention(theirs, ours, query, key, value):
    theirs.q.weight.copy_(query * ours.head_size**-0.5)
    theirs.k.weight.copy_(key)
    theirs.v.weight.copy_(value)
    theirs.o.weight.copy_(ours.out.weight)


def dict_trie(sids):
    """SIDs (lists of codes of the shared vocabulary) as nested dictionaries."""
    root = {}
    for sid in sids:
        node = root
        for token in sid:
            node = node.setdefault(token, {})
    return root


def allowed_tokens(trie):
    """The ``prefix_allowed_tokens_fn`` of a dict trie: the continuations of what was generated."""

    def allowed(batch_id, prefix):
        node = trie
        for token in prefix.tolist()[1:]:  # the first is the decoder's start
            node = node.get(token, {})
        return list(node) or [END]

    return allowed


@torch.no_grad()
def generate(model, trie, tokens, mask, n_levels, beam_size, **options):
    """Constrained beam search: tokens ``[B, W, L]``, best first, or with ``output_scores=True``
    those and their log-probabilities ``[B, W]``. ``options`` go to Hugging Face's ``generate``."""
    found = model.generate(
        input_ids=tokens,
        attention_mask=mask,
        prefix_allowed_tokens_fn=allowed_tokens(trie),
        num_beams=beam_size,
        num_return_sequences=beam_size,
        do_sample=False,
        min_new_tokens=n_levels,
        max_new_tokens=n_levels,
        length_penalty=0.0,
        early_stopping=True,
        return_dict_in_generate=True,
        **options,
    )
    sids = found.sequences[:, 1 : 1 + n_levels].unflatten(0, (-1, beam_size))
    if not options.get("output_scores"):
        return sids
    return sids, found.sequences_scores.unflatten(0, (-1, beam_size))
