// A fused program: steps over images, as compile hands them over; parsed and checked.
//
// Each value is one image of channels x height x width. Steps are in an order that they can run in
// and every value has one step that makes it. Nothing here depends on how the program is run.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "engine/pack_product.h"
#include "kernels/activation.h"
#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/window.h"

namespace sparsejax {

struct ImageSize {
  int64_t channels, height, width;
  int64_t pixels() const { return height * width; }
  int64_t floats() const { return channels * pixels(); }
  bool operator==(const ImageSize& other) const {
    return channels == other.channels && height == other.height && width == other.width;
  }
};

enum class Op : int64_t {
#define OP(name, code) k##name = code,
#include "engine/codes.def"
};
constexpr int64_t kNumOps = 0
#define OP(name, code) +1
#include "engine/codes.def"
    ;

enum class Pooling : int64_t {
#define POOLING(name, code) k##name = code,
#include "engine/codes.def"
};
constexpr int64_t kNumPoolings = 0
#define POOLING(name, code) +1
#include "engine/codes.def"
    ;

// Does a step compute each pixel from the same pixel of its inputs alone? A product does if it has
// no window.
inline bool is_pixelwise(Op op) {
  switch (op) {
    case Op::kInput:
    case Op::kOutput:
    case Op::kProduct:
    case Op::kAffine:
    case Op::kBinary:
    case Op::kConcat:
    case Op::kChannels:
    case Op::kLayerNorm:
    case Op::kRmsNorm:
    case Op::kSoftmax:
    case Op::kKnown:
    case Op::kCachedAttention:
      return true;
    default:
      return false;
  }
}

constexpr int64_t kNone = -1;

struct Step {
  Op op;
  int64_t output;
  Window window;
  int64_t pad_top;
  ActivationCall activation;
  int64_t residual, gate;  // values, or kNone
  int64_t groups;          // of a product's channels
  ProductLayout layout;    // of its weights, [out][in / groups][taps]
  bool channels_last;
  Pooling pooling;
  Binary binary;
  int64_t weights, bias;   // where they begin among the program's floats, or kNone
  int64_t argument, rank;  // which operand or result, or kNone; dimensions of one image, or 0
  std::vector<int64_t> inputs, channels;
};

// Where the floats of a pick come from: crops, strides, flips, nearest neighbours, channels as
// pixels and pixels as channels. Lists of one number for each row, column or channel of the output.
struct Picks {
  const int64_t *rows, *row_parts;          // row y: of the input, and added to the channel
  const int64_t *columns, *column_parts;    // column x
  const int64_t *channels, *below, *right;  // channel c; added to the row and to the column
  // Of a step whose list has `size(out)` numbers.
  Picks(const Step& step, const ImageSize& out)
      : rows(step.channels.data()),
        row_parts(rows + out.height),
        columns(row_parts + out.height),
        column_parts(columns + out.width),
        channels(column_parts + out.width),
        below(channels + out.channels),
        right(below + out.channels) {}
  static int64_t size(const ImageSize& out) {
    return 2 * (out.height + out.width) + 3 * out.channels;
  }
};

// What a norm adds to the variance: such a step has no activation, whose first number this is.
inline float epsilon_of(const Step& step) { return step.activation.low; }

// After how many rows of `out` the weights of a kKnown step begin again, whose floats they are.
inline int64_t known_rows(const Step& step) { return step.channels[0]; }
inline int64_t known_floats(const Step& step, const ImageSize& out) {
  return known_rows(step) * out.width;
}

// The heads of an attention over sequences of `length` rows, which lie one behind the other. q, k
// and v are channels of the step's first three inputs: those of a head begin at its numbers here.
// Of keys and values there may be another number of rows, in as many sequences. The fourth input,
// where there is one, is the mask.
struct Heads {
  int64_t count, size, value_size, length;
  Mask mask;
  const int64_t *queries, *keys, *values;  // first channels, one for each head
  float scale, fill;                       // of the scores; the score of what the mask leaves out
  // Of a step whose list has `list_size(heads)` numbers.
  explicit Heads(const Step& step)
      : count(step.channels[0]),
        size(step.channels[1]),
        value_size(step.channels[2]),
        length(step.channels[3]),
        mask(static_cast<Mask>(step.channels[4])),
        queries(step.channels.data() + kFirst),
        keys(queries + count),
        values(keys + count),
        scale(step.activation.low),
        fill(step.activation.high) {}
  static constexpr int64_t kFirst = 5;
  static int64_t list_size(int64_t heads) { return kFirst + 3 * heads; }
  // Keys of a sequence, where all sequences have so many rows of queries and of keys.
  int64_t keys_of(int64_t query_rows, int64_t key_rows) const {
    return key_rows / (query_rows / length);
  }
};

// The heads of an attention of one query a row, to `length` keys and values that lie in the same
// row of the second and third input: from a key to the next there are `key_step` channels. Then
// come, if the step has them, a new key and a new value, each followed by the number of the key
// whose place it takes; and the mask, where there is one.
struct CachedHeads : Heads {  // of a list with two steps behind it, and two numbers for each head
  int64_t key_step, value_step;
  const int64_t *new_keys, *new_values;  // first channels, one for each head
  explicit CachedHeads(const Step& step)
      : Heads(step),
        key_step(values[count]),
        value_step(values[count + 1]),
        new_keys(values + count + 2),
        new_values(new_keys + count) {}
  static constexpr size_t kNewKey = 3, kNewValue = 5, kWithNew = 7;  // places of inputs
  static bool has_new(const Step& step) { return step.inputs.size() >= kWithNew; }
  static bool has_mask(const Step& step) { return step.inputs.size() % 4 == 0; }
};

struct Program {
  std::vector<ImageSize> values;
  std::vector<Step> steps;
  std::vector<float> floats;
  int64_t num_operands = 0, num_results = 0;
};

// Reads {kMagic, number of values, their sizes, number of steps, steps} as
// compiler/engine/program.py writes them. Returns what could not be run safely, as "program: ...";
// empty if nothing is.
[[nodiscard]] std::string parse_program(const int64_t* words, int64_t num_words,
                                        std::vector<float> floats, Program& program);

constexpr int64_t kMagic = 0x73706a7803;

}  // namespace sparsejax
