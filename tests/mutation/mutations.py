"""What mutate.py breaks: one place at a time.

`search` and `replace` are expressions of one type. Mutations of one file may share a `search`, but not overlap in any
other way.
"""

from typing import NamedTuple


class Mutation(NamedTuple):
    name: str
    file: str
    search: str
    replace: str
    tests: str  # --gtest_filter: the tests worth running


BACKEND = "src/ops/cpu/backend.cpp"
LINEAR = "src/ops/cpu/linear.cpp"
PACK = "src/ops/cpu/pack.cpp"
ATTENTION = "src/ops/cpu/attention.cpp"
KERNELS = "src/ops/cpu/kernels.inl.h"
CODES = "src/ops/cpu/codes.inl.h"
KV_CODES = "src/ops/cpu/kv_codes.inl.h"
ROWS = "src/ops/cpu/rows.inl.h"
TILES = "src/ops/cpu/bf16_tiles.inl.h"
WALK = "src/ops/cpu/tile_products.h"
AVX512 = "src/ops/cpu/simd_avx512.h"
AVX2 = "src/ops/cpu/simd_avx2.h"
GENERIC = "src/ops/cpu/simd_generic.h"
REFERENCE = "src/ops/reference/backend.cpp"
SAMPLING = "src/ops/sampling.cpp"

NORM = "NormRows.*:NormQkv.*:NormHead.*"
LINEAR_ADD = "LinearAdd.*:*LinearAddOf*"
PRODUCTS = LINEAR_ADD + ":Embed.*"
KV = "NormQkv.*:Attention.*"
ATTEND = "Attention.*:Independence.*"
DRAWS = ("Greedy.*:*Penalty.*:LogitBias.*:BannedTokens.*:Top*:MinP.*:Temperature.*:Draw.*:Logprobs.*:NotANumber.*:"
         "UniformAt.*")

INPUTS_AND_PRODUCTS = [
    Mutation("embed: the row of the next token", BACKEND,
             "batch.tokens[static_cast<std::size_t>(row)]", "(batch.tokens[static_cast<std::size_t>(row)] + 1) % 50",
             "Embed.*"),
    Mutation("embed: int4 nibbles swapped", PACK, "place.high_nibble(column) ? stored >> 4U : stored & 15U",
             "place.high_nibble(column) ? stored & 15U : stored >> 4U", PRODUCTS),
    Mutation("rope angles: position off by one", BACKEND,
             "static_cast<float>(batch.positions[static_cast<std::size_t>(row)])",
             "static_cast<float>(batch.positions[static_cast<std::size_t>(row)] + 1)", "RopeAngles.*"),
    Mutation("rope angles: frequency of the pair before", BACKEND, "position * frequencies[i]",
             "position * frequencies[i > 0 ? i - 1 : 0]", "RopeAngles.*"),
    Mutation("rope angles: no scale on the sines", BACKEND, "std::sin(angle) * rope.scale", "std::sin(angle)",
             "RopeAngles.*"),
    Mutation("norm: eps dropped", ROWS, "sum / static_cast<float>(n) + eps", "sum / static_cast<float>(n)", NORM),
    Mutation("norm: last columns left out of the sum", ROWS, "sum += x[i] * x[i]", "sum += 0.0F", NORM),
    Mutation("norm: gain dropped", ROWS, "mul(load(gain + i), mul(load(x + i), set1(scale)))",
             "mul(load(x + i), set1(scale))", NORM),
    Mutation("bias dropped", LINEAR, "values[i] += bias[i]", "values[i] += 0.0F", LINEAR_ADD),
    Mutation("bias of the neighbour", LINEAR, "part.bias->data() + column", "part.bias->data() + (column > 0)",
             LINEAR_ADD),
    Mutation("residual overwritten", ROWS, "add(load(out + i), mul(set1(scale), load(x + i)))",
             "mul(set1(scale), load(x + i))", LINEAR_ADD),
    Mutation("residual overwritten in the last columns", ROWS, "out[i] += scale * x[i]", "out[i] = scale * x[i]",
             LINEAR_ADD),
    Mutation("parts begin at the same column", LINEAR, "first_column += weight.rows()",
             "first_column += 0", LINEAR_ADD),
    Mutation("wanted rows ignored", LINEAR, "wanted != nullptr ? wanted[row] : row", "row", "NormHead.*"),
    Mutation("dense: last column left out", KERNELS, "step + kStep < weight.cols ? step + kStep : weight.cols",
             "step + kStep < weight.cols ? step + kStep : weight.cols - (weight.cols > 1)", LINEAR_ADD),
    Mutation("codes: a step too large by a thousandth", KERNELS, "largest > 0 ? kLargest / largest : 0.0F",
             "largest > 0 ? 0.999F * kLargest / largest : 0.0F", LINEAR_ADD),
    Mutation("codes: results as if of one step more", KERNELS, "largest * (1.0F / kLargest)",
             "largest / (kLargest + 1)", LINEAR_ADD),
    Mutation("codes: NaN hidden", KERNELS, "groups[0].scale += reduce_add(poison)",
             "groups[0].scale += 0.0F", "NotANumber.*"),
    Mutation("codes: sum of 16 off", KERNELS, "group.sums[1] = store_codes(mul(b, set1(inverse)), high + 16, low + 16)",
             "group.sums[1] = 50 + store_codes(mul(b, set1(inverse)), high + 16, low + 16)", LINEAR_ADD),
    Mutation("codes: low half dropped", KERNELS, "Unit::dot(lower[p], units[p], step, low)",
             "lower[p]", LINEAR_ADD),
    Mutation("codes: high half counted 129 times", KERNELS, "add_int(times_low_steps(upper[p]), lower[p])",
             "add_int(add_int(times_low_steps(upper[p]), upper[p]), lower[p])", LINEAR_ADD),
    Mutation("quantized: scale of the group before", KERNELS, "scale[p] = Layout::Scales::load16(meta)",
             "scale[p] = Layout::Scales::load16(meta - layout.group_bytes)", LINEAR_ADD),
    Mutation("quantized: offsets dropped", KERNELS, "fma(offset[p], x.sum, sum)",
             "sum", LINEAR_ADD),
    Mutation("quantized: offsets packed for the next row", PACK, "code_bytes + (kPanelRows + lane) * scale_bytes",
             "code_bytes + (kPanelRows + (lane + 1) % kPanelRows) * scale_bytes", PRODUCTS),
    Mutation("quantized: input sum of the first 16 only", CODES, "group.sums[0] + group.sums[1]",
             "group.sums[0]", LINEAR_ADD),
    Mutation("quantized: input scale of the next group", CODES, "groups[unit]",
             "groups[(unit + 1) % (cols / kActivationGroup)]", LINEAR_ADD),
    Mutation("int8: excess 127 (avx512)", AVX512, "set1_int(-128 * sum_of_x)", "set1_int(-127 * sum_of_x)",
             LINEAR_ADD),
    Mutation("int8: excess 127 (generic)", GENERIC, "set1_int(-128 * sum_of_x)", "set1_int(-127 * sum_of_x)",
             LINEAR_ADD),
    Mutation("int8: maddubs on unsigned bytes that overflow (avx2)", AVX2,
             "dot_eight(acc, _mm256_abs_epi8(code), _mm256_sign_epi8(x, code))",
             "_mm256_sub_epi32(dot_eight(acc, excess, x), "
             "dot_eight(_mm256_setzero_si256(), _mm256_set1_epi8(-128), x))",
             LINEAR_ADD),
    Mutation("int4: low nibbles twice (avx512)", AVX512, "_mm512_srli_epi16(a.v, 4)", "a.v", LINEAR_ADD),
    Mutation("int4: low nibbles twice (avx2)", AVX2, "_mm256_srli_epi16(c.a, 4)", "c.a", LINEAR_ADD),
    Mutation("half scales where they are not exact", PACK, "to_float(to_half(value)) != value", "false",
             LINEAR_ADD),
    Mutation("exact arithmetic ignored", PACK, "arithmetic == Arithmetic::kExact", "false", LINEAR_ADD),
    Mutation("threads: a worker skips the last panel of its run", LINEAR, "begin + (turn < runs ? wide : 1)",
             "begin + (turn < runs ? wide - 1 : 1)", LINEAR_ADD),
    Mutation("rows: a single row's bits differ by a rounding", KERNELS, "sum[p] = fma(to_float(dot), mul(scale[p], x.scale), sum[p])",
             "sum[p] = fma(to_float(dot), mul(mul(scale[p], x.scale), set1(1.0000001F)), sum[p])", "Independence.*"),
]

TILES_OF_BF16 = [
    Mutation("tiles: the pairs' columns swapped", TILES, "_mm512_cvtne2ps_pbh(odd.v, even.v)",
             "_mm512_cvtne2ps_pbh(even.v, odd.v)", PRODUCTS),
    Mutation("tiles: int8 counted from 0", TILES, "_mm512_xor_si512(codes, _mm512_set1_epi32(static_cast<int>(0x80808080U)))",
             "codes", PRODUCTS),
    Mutation("tiles: scales of the first group", TILES, "codes + group + layout.units * Tile::kBytes",
             "codes + layout.units * Tile::kBytes", PRODUCTS),
    Mutation("tiles: codes of a group's first unit", TILES, "group + unit * Tile::kBytes", "group", PRODUCTS),
    Mutation("tiles: a dense column past the last", TILES, "pair + 1 < w.cols", "true", PRODUCTS),
    Mutation("tiles: the input's last columns left out", TILES, "rest < 16 ? (1U << rest) - 1 : 0xFFFFU",
             "rest < 16 ? (1U << rest) / 2 : 0xFFFFU", PRODUCTS),
    Mutation("tiles: every chunk of columns begins anew", WALK, "chunk.begin > 0", "false", LINEAR_ADD),
    Mutation("tiles: the chunks' sums in one place", WALK, "adds || !chunk.last", "false", LINEAR_ADD),
    Mutation("tiles: the lower rows left out", WALK, "rows > kBf16TileRows ? input + row_tiles : nullptr", "nullptr",
             LINEAR_ADD),
    Mutation("tiles: up by the gate's panels", WALK, "*task_.weights[w]", "*task_.weights[0]", "NormGatedUp.*"),
    Mutation("tiles: handed over for other rows", LINEAR, "tile_row(reinterpret_cast<std::uint16_t*>(h), row + r, width)",
             "tile_row(reinterpret_cast<std::uint16_t*>(h), (row + r) ^ 1, width)", "NormGatedUp.*"),
    Mutation("tiles: a run of panels too few", LINEAR, "std::min(first + run, pairs)",
             "std::min(first + run, pairs) - (run > 1)", LINEAR_ADD),
]

GATES = [
    Mutation("gate and up swapped", LINEAR,
             "kernels_.gate(gate, gates, ups, stride, row_count, columns, h + row * width + column, width)",
             "kernels_.gate(gate, ups, gates, stride, row_count, columns, h + row * width + column, width)",
             "NormGatedUp.*"),
    Mutation("gate: silu for gelu_tanh", ROWS, "gate == Gate::kSilu ? x : cubic", "x", "NormGatedUp.*"),
    Mutation("gate: gelu by its sigmoid approximation", ROWS,
             "0.5F * x * __builtin_erfcf(x * -0.707106781F)", "x / (1.0F + __builtin_expf(-1.702F * x))",
             "NormGatedUp.*"),
    Mutation("gate: gelu_tanh of the last columns off by a digit", ROWS, "1.59576912F + 0.0713548162F * x * x",
             "1.59576912F + 0.0712548162F * x * x", "NormGatedUp.*"),
    Mutation("exponential: off by a millionth", ROWS, "scale_exponent(p, n)",
             "scale_exponent(mul(p, set1(1.000001F)), n)", "NormGatedUp.*:Attention.*"),
    Mutation("gelu: a coefficient off by a digit", ROWS, "set1(0.218686715F)", "set1(0.218686115F)",
             "LinearVariants.Gelu*"),
    Mutation("gelu: its tanh form", ROWS, "gate == Gate::kGelu", "false", "NormGatedUp.*"),
    Mutation("gelu: what is below zero passes", ROWS, "max(zero(), x)", "x", "NormGatedUp.*"),
    Mutation("tanh: one coefficient fewer", ROWS, "set1(1.98412698e-4F)", "zero()", "LinearVariants.*SoftCap*"),
]

CACHE = [
    Mutation("rope: sign", ROWS, "sub(mul(a, load(cosines + i)), mul(b, load(sines + i)))",
             "add(mul(a, load(cosines + i)), mul(b, load(sines + i)))", KV),
    Mutation("rope: sign in the last columns", ROWS, "a * cosines[i] - b * sines[i]", "a * cosines[i] + b * sines[i]",
             KV),
    Mutation("rope: sine for cosine", ROWS, "b * cosines[i] + a * sines[i]", "b * sines[i] + a * cosines[i]", KV),
    Mutation("rope: keys not turned", LINEAR, "kernels_.rotate(key, angles, args.rotary_dim)",
             "kernels_.rotate(key, angles, 0)", KV),
    Mutation("kv: slot off by one", LINEAR, "position % kKvBlockTokens", "(position + 1) % kKvBlockTokens",
             "NormQkv.*"),
    Mutation("kv: block off by one", LINEAR, "slice.blocks[static_cast<std::size_t>(position / kKvBlockTokens)]",
             "slice.blocks[static_cast<std::size_t>(position / kKvBlockTokens + 1) % slice.blocks.size()]",
             "NormQkv.*"),
    Mutation("kv: always layer 0", LINEAR, "cache.head(block, args.layer, h)", "cache.head(block, 0, h)",
             "NormQkv.*"),
    Mutation("kv: keys and values swapped", LINEAR, "kv + tile.row * kv_width + tile.column - q_width",
             "kv + tile.row * kv_width + (tile.column - q_width + kv_width / 2) % kv_width", "NormQkv.*"),
    Mutation("kv: bfloat16 truncated", KERNELS, "(bits + 0x7FFFU + ((bits >> 16U) & 1U)) >> 16U", "bits >> 16U",
             "NormQkv.*"),
    Mutation("kv: bfloat16 ties away from even", KERNELS, "(bits + 0x7FFFU + ((bits >> 16U) & 1U)) >> 16U",
             "(bits + 0x8000U) >> 16U", "NormQkv.*"),
]

KV_CODES_TESTS = "*KvCodes*:AttentionOfCodes.*:NotANumber.*"
CACHED_CODES = [
    Mutation("kv codes: truncated", KV_CODES, "round(min(max(counted, zero()), set1(kLargest)))",
             "round(sub(min(max(counted, zero()), set1(kLargest)), set1(0.5F)))", KV_CODES_TESTS),
    Mutation("kv codes: halves swapped", KV_CODES, "codes[i + j] + 16 * codes[i + kWord + j]",
             "codes[i + kWord + j] + 16 * codes[i + j]",
             KV_CODES_TESTS),
    Mutation("kv codes: what is no number passes", KV_CODES, "step + reduce_add(poison)", "step", KV_CODES_TESTS),
    Mutation("kv codes: min of a key lost", KV_CODES, "fma(product, step, mul(smallest, set1(q.sums[n])))",
             "mul(product, step)", KV_CODES_TESTS),
    Mutation("kv codes: scale of a value lost", KV_CODES, "mul(weight, load_parameters(scales, tokens - t))", "weight", KV_CODES_TESTS),
    Mutation("kv codes: min of a value lost", KV_CODES, "fma(sum, set1(weights.rows[n].scale), set1(weights.offsets[n]))",
             "mul(sum, set1(weights.rows[n].scale))", KV_CODES_TESTS),
]

ATTENTIONS = [
    Mutation("attention: scale dropped", KERNELS, "mul(sum[n][v], set1(scale))", "sum[n][v]", "Attention.*"),
    Mutation("attention: mask sees one too many", ATTENTION,
             "std::min(query.position + 1 - chunk_start, kChunkTokens)",
             "std::min(query.position + 2 - chunk_start, kChunkTokens)", "Attention.*"),
    Mutation("attention: mask sees one too few", ATTENTION,
             "std::min(query.position + 1 - chunk_start, kChunkTokens)",
             "std::min(std::max<std::int64_t>(1, query.position - chunk_start), kChunkTokens)",
             "Attention.*"),
    Mutation("attention: block of the next 64 tokens", ATTENTION,
             "slice.blocks[static_cast<std::size_t>(t / kKvBlockTokens)]",
             "slice.blocks[static_cast<std::size_t>(t / kKvBlockTokens + 1) % slice.blocks.size()]", "Attention.*"),
    Mutation("attention: KV head of another group", ATTENTION, "task.head / (args.heads / cache.layout.kv_heads)",
             "task.head % cache.layout.kv_heads", "Attention.*"),
    Mutation("attention: query of the row before", ATTENTION,
             "args.q + ((task.slice->first_row + row) * args.heads + head) * head_dim",
             "args.q + ((task.slice->first_row + std::max<std::int64_t>(0, row - 1)) * args.heads + head) * head_dim",
             "Attention.*"),
    Mutation("attention: chunks merged without rescaling", ATTENTION, "std::exp(max - together)", "1.0F",
             "Attention.*"),
    Mutation("attention: sum of a chunk lost", ATTENTION, "sum * a + chunk_sum * b", "sum * a", "Attention.*"),
    Mutation("attention: a row ends one chunk early", ATTENTION,
             "slice.first_position + task.row + first / task.heads + 1 <= chunk_start",
             "slice.first_position + task.row + first / task.heads <= chunk_start", ATTEND),
    Mutation("attention: last value of a block left out", KERNELS, "left < kKvBlockTokens ? left : kKvBlockTokens",
             "left < kKvBlockTokens ? left : kKvBlockTokens - 1", "Attention.*"),
    Mutation("attention: padding not masked", KERNELS, "scores[t] = kMasked", "scores[t] = scores[t]", "Attention.*"),
    Mutation("attention: a chunk of another task merged", ATTENTION, "same_queries(attention_tasks_[end], task)",
             "attention_tasks_[end].partial >= 0", ATTEND),
    Mutation("attention: chunks merged by the smaller maximum", ATTENTION, "std::max(max, chunk_max)",
             "std::min(max, chunk_max)", "Attention.*"),
]

NORMS = "NormRows.*:LinearVariants.*:NormQkv.*"
VARIANTS = "LinearVariants.*"

LAYER_NORMS = [
    Mutation("layer norm: taken for RMS norm", LINEAR, "norm.kind == NormKind::kRms", "true", NORMS),
    Mutation("layer norm: eps dropped", ROWS, "variance / static_cast<float>(n) + eps",
             "variance / static_cast<float>(n)", NORMS),
    Mutation("layer norm: the mean stays in", ROWS, "mul(sub(load(x + i), set1(mean)), set1(scale))",
             "mul(load(x + i), set1(scale))", NORMS),
    Mutation("layer norm: last columns left out of the variance", ROWS,
             "variance += (x[i] - mean) * (x[i] - mean)", "variance += 0.0F", NORMS),
    Mutation("layer norm: bias dropped", ROWS, "bias != nullptr ? load(bias + i) : zero()", "zero()", NORMS),
    Mutation("layer norm: bias of the last columns dropped", ROWS, "bias != nullptr ? bias[i] : 0.0F", "0.0F", NORMS),
]

HEAD_NORMS = [
    Mutation("norm of q: skipped", LINEAR, "normalize(args.q_norm, query, head_dim, query)", "void()", "NormQkv.*"),
    Mutation("norm of q: over half of the head", LINEAR, "normalize(args.q_norm, query, head_dim, query)",
             "normalize(args.q_norm, query, head_dim / 2, query)", "NormQkv.*"),
    Mutation("norm of k: skipped", LINEAR, "normalize(args.k_norm, key, head_dim, key)", "void()", "NormQkv.*"),
    Mutation("norm of k: of the first head only", LINEAR, "normalize(args.k_norm, key, head_dim, key)",
             "normalize(args.k_norm, kv, head_dim, kv)", "NormQkv.*"),
]

PRODUCT_VARIANTS = [
    Mutation("input order: ignored", LINEAR, "in[order[i]]", "in[i]", VARIANTS),
    Mutation("input order: of the next column", LINEAR, "in[order[i]]", "in[order[(i + 1) % linear.cols()]]", VARIANTS),
    Mutation("input order: of what was not normed", LINEAR, "in = normed", "in = linear.input_order.empty() ? normed : in",
             VARIANTS),
    Mutation("scale: skipped", ROWS, "add(load(out + i), mul(set1(scale), load(x + i)))",
             "add(load(out + i), load(x + i))", VARIANTS),
    Mutation("scale: also of the residual", ROWS, "add(load(out + i), mul(set1(scale), load(x + i)))",
             "mul(set1(scale), add(load(out + i), load(x + i)))", VARIANTS),
    Mutation("scale: skipped in the last columns", ROWS, "out[i] += scale * x[i]", "out[i] += x[i]", VARIANTS),
    Mutation("scale before the norm of the product: skipped", LINEAR, "values[i] * scale",
             "values[i]", VARIANTS),
    Mutation("norm of the product: skipped", LINEAR, "normalize(post_norm, normed, width, normed)",
             "void()", VARIANTS),
    Mutation("norm of the product: over the first part", LINEAR, "normalize(post_norm, normed, width, normed)",
             "normalize(post_norm, normed, linear.parts[0].weight->rows(), normed)", VARIANTS),
    Mutation("norm of the product: residual overwritten", LINEAR,
             "kernels_.add_scaled(normed, width, 1, width, 1.0F, x + row * width, width)",
             "static_cast<void>(std::memcpy(x + row * width, normed, static_cast<std::size_t>(width) * 4))", VARIANTS),
    Mutation("without a gate: multiplied by itself", LINEAR,
             "linear.parts.size() == 2 ? &cpu_weight(linear.parts[1]) : nullptr", "&cpu_weight(linear.parts.back())",
             VARIANTS),
    Mutation("without a gate: no activation", ROWS, "store(out + i, activate(kGate, load(g + i)))",
             "store(out + i, load(g + i))", VARIANTS),
    Mutation("logits: scale skipped", LINEAR, "values[i] *= epilogue.scale", "values[i] *= 1.0F", VARIANTS),
    Mutation("logits: cap skipped", LINEAR, "epilogue.soft_cap != 0", "false", VARIANTS),
    Mutation("logits: the last ones of a ragged panel not capped", LINEAR,
             "kernels_.soft_cap(values, tile.columns, epilogue.soft_cap)",
             "kernels_.soft_cap(values, tile.columns / 16 * 16, epilogue.soft_cap)", VARIANTS),
    Mutation("cap: not multiplied back", ROWS,
             "mul(set1(cap), hyperbolic_tangent(div(load(values + i), set1(cap))))",
             "hyperbolic_tangent(div(load(values + i), set1(cap)))", VARIANTS),
    Mutation("cap: of what was not divided", ROWS,
             "mul(set1(cap), hyperbolic_tangent(div(load(values + i), set1(cap))))",
             "mul(set1(cap), hyperbolic_tangent(load(values + i)))", VARIANTS),
    Mutation("embed: scale skipped", BACKEND, "scale == 1.0F", "true", "Embed.*"),
    Mutation("embed: scale twice", BACKEND, "out[i] *= scale", "out[i] *= scale * scale", "Embed.*"),
]

ATTENTION_VARIANTS = [
    Mutation("window: one token too many", ATTENTION, "position - args.window + 1", "position - args.window",
             "Attention.*"),
    Mutation("window: one token too few", ATTENTION, "position - args.window + 1",
             "position - args.window + 1 + (args.window > 1)", "Attention.*"),
    Mutation("window: tokens before it not masked", KERNELS, "scores[early] = kMasked", "scores[early] = scores[early]",
             "Attention.*"),
    Mutation("window: a task begins at its last row's chunk", ATTENTION,
             "first_chunk(args, slice.first_position + row)",
             "first_chunk(args, slice.first_position + row + rows - 1)", ATTEND),
    Mutation("window: a row leaves out the chunk that it begins in", ATTENTION,
             "first_chunk(args, slice.first_position + task.row + (end - 1) / task.heads) > chunk",
             "first_chunk(args, slice.first_position + task.row + (end - 1) / task.heads) >= chunk", ATTEND),
    Mutation("window: a row begins with its task", ATTENTION,
             "std::max(task.first_chunk, first_chunk(args, queries[n].position))", "task.first_chunk", ATTEND),
    Mutation("window: blocks left out in part", ATTENTION,
             "std::min(unseen, query.begin / kKvBlockTokens * kKvBlockTokens)", "std::min(unseen, query.begin)",
             ATTEND),
    Mutation("window: blocks left out that another row sees", ATTENTION,
             "std::min(unseen, query.begin / kKvBlockTokens * kKvBlockTokens)",
             "query.begin / kKvBlockTokens * kKvBlockTokens", ATTEND),
    Mutation("cap of scores: skipped", ATTENTION, "args.soft_cap != 0", "false", "Attention.*"),
    Mutation("cap of scores: of the first 16 tokens only", ATTENTION,
             "kernels_.soft_cap(own, tokens, args.soft_cap)", "kernels_.soft_cap(own, 16, args.soft_cap)",
             "Attention.*"),
    Mutation("slopes: dropped", ROWS, "fma(set1(slope), away, load(scores + i))", "load(scores + i)", "Attention.*"),
    Mutation("slopes: of the task's first head", ATTENTION,
             "args.alibi_slopes->data()[task.head + (first + n) % task.heads]",
             "args.alibi_slopes->data()[task.head]", "Attention.*"),
    Mutation("slopes: distances begin anew in each chunk", ATTENTION, "chunk_start + unseen - query.position",
             "unseen - query.position", "Attention.*"),
    Mutation("slopes: distances of blocks left out forgotten", ATTENTION, "chunk_start + unseen - query.position",
             "chunk_start - query.position", ATTEND),
    Mutation("slopes: one distance for 16 tokens", ROWS,
             "add(set1(static_cast<float>(distance + i)), ascending)", "set1(static_cast<float>(distance + i))",
             "Attention.*"),
]

ORACLE = [
    Mutation("reference: rope sign", REFERENCE, "a * angles[i] - b * angles[half + i]",
             "a * angles[i] + b * angles[half + i]", "Reference.*"),
    Mutation("reference: eps dropped", REFERENCE, "static_cast<double>(norm.eps)", "0.0", "Reference.*"),
    Mutation("reference: attention scale dropped", REFERENCE, "static_cast<double>(args.scale)", "1.0",
             "Reference.*"),
    Mutation("reference: mask sees one too many", REFERENCE, "slice.first_position + i + 1",
             "slice.first_position + i + 2", "Reference.*"),
    Mutation("reference: int8 codes unsigned", REFERENCE, "static_cast<std::int8_t>(code)", "static_cast<int>(code)",
             "Reference.*"),
    Mutation("reference: the mean stays in", REFERENCE, "norm.kind == NormKind::kLayer", "false", "Reference.*"),
    Mutation("reference: bias of the norm dropped", REFERENCE, "norm.bias != nullptr", "false", "Reference.*"),
    Mutation("reference: input order ignored", REFERENCE, "plain[static_cast<std::size_t>(linear.input_order[i])]",
             "plain[i]", "Reference.*"),
    Mutation("reference: scale of the product skipped", REFERENCE, "value *= linear.epilogue.scale", "value *= 1.0F",
             "Reference.*"),
    Mutation("reference: norm of the product skipped", REFERENCE,
             "normalize(linear.epilogue.post_norm, product.data() + row * width, width)",
             "normalize({}, product.data() + row * width, width)", "Reference.*"),
    Mutation("reference: scale of the logits skipped", REFERENCE, "value * epilogue.scale", "value", "Reference.*"),
    Mutation("reference: cap of the logits skipped", REFERENCE, "epilogue.soft_cap == 0", "true", "Reference.*"),
    Mutation("reference: scale of the embedding skipped", REFERENCE, "scale * values[i]", "values[i]", "Reference.*"),
    Mutation("reference: norm of q for k", REFERENCE, "h < args.heads ? args.q_norm : args.k_norm", "args.q_norm",
             "Reference.*"),
    Mutation("reference: up part of an MLP without one", REFERENCE, "linear.parts.size() == 2", "true",
             "Reference.*"),
    Mutation("reference: window one token too wide", REFERENCE, "tokens - args.window", "tokens - args.window - 1",
             "Reference.*"),
    Mutation("reference: cap of the scores skipped", REFERENCE, "cap * std::tanh(score / cap)", "score",
             "Reference.*"),
    Mutation("reference: slopes uphill", REFERENCE, "static_cast<double>(t - (tokens - 1))",
             "static_cast<double>((tokens - 1) - t)", "Reference.*"),
]

SAMPLING_STEPS = [
    Mutation("sampling: repetition penalty ignores the sign", SAMPLING, "raw < 0 ? raw * penalty : raw / penalty",
             "raw / penalty", DRAWS),
    Mutation("sampling: repetition penalty at each occurrence", SAMPLING, "row.logits[index]",
             "scores[index].logprob", DRAWS),
    Mutation("sampling: presence counted as frequency", SAMPLING,
             "params.presence_penalty + params.frequency_penalty * static_cast<float>(end - i)",
             "(params.presence_penalty + params.frequency_penalty) * static_cast<float>(end - i)", DRAWS),
    Mutation("sampling: ties to the higher id", SAMPLING, "a.token < b.token", "a.token > b.token", DRAWS),
    Mutation("sampling: top-k keeps one more", SAMPLING, "static_cast<std::size_t>(params.top_k)",
             "static_cast<std::size_t>(params.top_k) + 1", DRAWS),
    Mutation("sampling: top-p share of everything", SAMPLING, "cumulative >= static_cast<double>(params.top_p) * sum",
             "cumulative >= static_cast<double>(params.top_p)", DRAWS),
    Mutation("sampling: top-p keeps one more", SAMPLING, "cumulative >= static_cast<double>(params.top_p) * sum",
             "cumulative - static_cast<double>(candidates[kept - 1].logprob) >= "
             "static_cast<double>(params.top_p) * sum", DRAWS),
    Mutation("sampling: min-p ignored", SAMPLING, "candidates[kept - 1].logprob < params.min_p", "false", DRAWS),
    Mutation("sampling: a ban is only a malus", SAMPLING, "scratch[static_cast<std::size_t>(token)].logprob = kBanned",
             "scratch[static_cast<std::size_t>(token)].logprob -= 50", DRAWS),
    Mutation("sampling: temperature squared", SAMPLING, "static_cast<double>(params.temperature) + 1e-6",
             "static_cast<double>(params.temperature * params.temperature) + 1e-6", DRAWS),
    Mutation("sampling: one number for all positions", SAMPLING, "uniform_at(params.seed, row.output_tokens.size())",
             "uniform_at(params.seed, 0)", DRAWS),
    Mutation("sampling: NaN not looked for", SAMPLING, "found == 0", "true", DRAWS),
    Mutation("sampling: logprobs without normalization", SAMPLING, "largest + std::log(sum)",
             "largest + 0 * sum", DRAWS),
    Mutation("sampling: seeds give one stream, shifted", SAMPLING, "mix(seed + 0x9E3779B97F4A7C15U)", "seed", DRAWS),
]

MUTATIONS = (INPUTS_AND_PRODUCTS + TILES_OF_BF16 + GATES + CACHE + CACHED_CODES + ATTENTIONS + LAYER_NORMS + HEAD_NORMS +
             PRODUCT_VARIANTS + ATTENTION_VARIANTS + ORACLE + SAMPLING_STEPS)
