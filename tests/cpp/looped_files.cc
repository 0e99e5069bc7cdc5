// Files of several programs and loops, as `save` would write them.
#include <numeric>

#include "files.h"

namespace sparsejax::test {
namespace {

using Numbers = std::vector<int64_t>;

std::string listed(const Numbers& numbers) {
  std::string text = "[";
  for (size_t i = 0; i < numbers.size(); i++) text += (i ? "," : "") + std::to_string(numbers[i]);
  return text + "]";
}

constexpr int64_t kConstants = 64;

// Rows of `channels` through a product, that of two inputs with the second added.
class Programs {
 public:
  explicit Programs(int64_t channels) : channels_(channels) {
    text_ = program(0, 1) + "," + program(1, 2);
    tensor("constants", kConstants);
  }

  const std::string& text() const { return text_; }

  std::vector<uint8_t> file(const std::string& graph) const {
    std::string escaped;
    for (char c : graph) escaped += (c == '"' ? "\\" : "") + std::string(1, c);
    const std::string header =
        R"({"__metadata__":{"sparsejax":")" + escaped + "\"}" + tensors_ + "}";
    std::vector<uint8_t> file(8);
    for (int i = 0; i < 8; i++) file[i] = static_cast<uint8_t>(header.size() >> (8 * i));
    file.insert(file.end(), header.begin(), header.end());
    for (int64_t i = 0; i < floats_; i++)
      file.insert(file.end(), {0, 0, static_cast<uint8_t>(i % 3 ? 0x80 : 0), 0x3e});
    return file;
  }

 private:
  std::string program(int64_t number, int64_t inputs) {
    const std::string row = listed({channels_, 1, 1}), own = std::to_string(number) + "/";
    const std::string port =
        R"({"dtype":"float32","shape":["batch",)" + std::to_string(channels_) + "]}";
    std::string ports = port, values = row + "," + row, steps;
    for (int64_t i = 0; i < inputs; i++)
      steps += R"({"op":"input","output":)" + std::to_string(i) + R"(,"argument":)" +
               std::to_string(i) + "},";
    if (inputs > 1) ports += "," + port, values += "," + row;
    const std::string step = std::to_string(inputs);
    steps += R"({"op":"product","inputs":[0],"output":)" + step +
             (inputs > 1 ? R"(,"residual":1)" : R"(,"function":"tanh")") +
             R"(,"weights":{"form":"all","block":1}},{"op":"output","inputs":[)" + step +
             R"(],"argument":0})";
    tensor(own + step + ".values", channels_ * channels_);
    tensor(own + step + ".bias", channels_);
    return R"({"items":"rows","inputs":[)" + ports + R"(],"outputs":[)" + port + R"(],"values":[)" +
           values + R"(],"steps":[)" + steps + "]}";
  }

  void tensor(const std::string& name, int64_t floats) {
    tensors_ += ",\"" + name + R"(":{"dtype":"F32","shape":[)" + std::to_string(floats) +
                R"(],"data_offsets":[)" + std::to_string(4 * floats_) + "," +
                std::to_string(4 * (floats_ + floats)) + "]}";
    floats_ += floats;
  }

  const int64_t channels_;
  std::string text_, tensors_;
  int64_t floats_ = 0;
};

// Any parts over values of `channels` times something.
class Sequencer {
 public:
  Sequencer(Choices& choices, int64_t channels, Numbers given, int64_t depth)
      : c_(choices), channels_(channels), values_(std::move(given)), depth_(depth) {}

  void grow(int64_t parts) {
    for (; parts > 0; parts--) {
      switch (c_.below(depth_ > 0 ? 7 : 6)) {
        case 0:
          call(any());
          break;
        case 1:
          add(R"("call":1)", {any_of(values_[0]), any_of(values_[0])}, {values_[0]});
          break;
        case 2:
          view(any());
          break;
        case 3:
          join(any());
          break;
        case 4:
          add(R"("constant":)" + std::to_string(c_.below(8)), {}, {channels_});
          break;
        case 5:
          take(any(), any());
          break;
        default:
          loop();
      }
    }
  }

  int64_t call(int64_t value) { return add(R"("call":0)", {value}, {values_[value]}); }
  int64_t floats(int64_t value) const { return values_[value]; }
  int64_t last() const { return static_cast<int64_t>(values_.size()) - 1; }
  std::string text(const Numbers& outputs) const {
    return R"({"values":)" + listed(values_) + R"(,"parts":[)" + parts_ + R"(],"outputs":)" +
           listed(outputs) + "}";
  }

 private:
  int64_t any() { return c_.below(last() + 1); }
  int64_t any_of(int64_t floats) {
    const int64_t value = any();
    return values_[value] == floats ? value : 0;
  }

  int64_t add(const std::string& what, const Numbers& inputs, const Numbers& sizes) {
    Numbers outputs;
    for (int64_t size : sizes) {
      outputs.push_back(static_cast<int64_t>(values_.size()));
      values_.push_back(size);
    }
    parts_ += (parts_.empty() ? "{" : ",{") + what + R"(,"inputs":)" + listed(inputs) +
              R"(,"outputs":)" + listed(outputs) + "}";
    return last();
  }

  // Its rows in another order, its columns as rows, or some of its rows.
  void view(int64_t value) {
    const int64_t rows = values_[value] / channels_;
    const int64_t step = c_.of({-1, 1, 2}), kept = step == 2 ? (rows + 1) / 2 : rows;
    const std::string begin = R"("begin":)" + std::to_string(step < 0 ? (rows - 1) * channels_ : 0);
    const Numbers turned = {channels_, 1, kept, step * channels_};
    const Numbers digits = {kept, step * channels_, channels_, 1};
    add(begin + R"(,"view":)" + listed(c_.below(2) ? turned : digits), {value}, {kept * channels_});
  }

  void join(int64_t value) {
    const int64_t other = any();
    const int64_t pieces = c_.below(2) ? 1 : std::gcd(values_[value], values_[other]);
    add(R"("join":)" + std::to_string(pieces), {value, other}, {values_[value] + values_[other]});
  }

  // Rows of a value, or of a constant, at what another value says.
  void take(int64_t table, int64_t index) {
    const bool known = c_.below(2);
    if (values_[index] * channels_ > 500) return;
    const int64_t rows = known ? 1 + c_.below(8) : values_[table] / channels_;
    std::string what = R"("take":)" + std::to_string(rows) + R"(,"floats":)" +
                       std::to_string(channels_) + (c_.below(2) ? R"(,"fill":true)" : "");
    if (known) what += R"(,"constant":)" + std::to_string(c_.below(8));
    add(what, known ? Numbers{index} : Numbers{table, index}, {values_[index] * channels_});
  }

  void loop() {
    const int64_t shared = any(), carried = any(), scanned = any();
    const int64_t rows = values_[scanned] / channels_;
    const int64_t turns = rows % 2 ? rows : rows / 2;
    Sequencer body(c_, channels_, {values_[shared], values_[carried], values_[scanned] / turns},
                   depth_ - 1);
    body.grow(1 + c_.below(3));
    const int64_t stacked = body.last(), next = body.call(1);
    const std::string what = R"("loop":)" + std::to_string(turns) + R"(,"shared":1,"carried":1)" +
                             (c_.below(2) ? R"(,"reverse":true)" : "") + R"(,"body":)" +
                             body.text({next, stacked});
    add(what, {shared, carried, scanned}, {values_[carried], turns * body.floats(stacked)});
  }

  Choices& c_;
  const int64_t channels_;
  Numbers values_;
  const int64_t depth_;
  std::string parts_;
};

}  // namespace

std::vector<uint8_t> looped_file(Choices& choices) {
  const int64_t channels = 1 + choices.below(5), rows = 1 + choices.below(6);
  Sequencer sequence(choices, channels, {rows * channels, channels}, 2);
  sequence.grow(1 + choices.below(6));
  const int64_t made = sequence.call(sequence.last());
  const auto port = [&](int64_t floats) {
    return R"({"name":"p","dtype":"float32","shape":["batch",)" + std::to_string(floats) + "]}";
  };
  const Programs programs(channels);
  return programs.file(R"({"version":4,"reader":4,"inputs":[)" + port(rows * channels) + "," +
                       port(channels) + R"(],"outputs":[)" + port(sequence.floats(made)) +
                       R"(],"programs":[)" + programs.text() + R"(],"sequence":)" +
                       sequence.text({made}) + "}");
}

}  // namespace sparsejax::test
