// The custom calls themselves: a batch is its slices, what does not fit is refused, and nothing is
// read or written beyond its end, whatever comes.
#include <algorithm>

#include "calls.h"
#include "programs.h"

namespace sparsejax::test {
namespace {

bool same_words(const Tensor& a, const Tensor& b) { return a.words == b.words; }

// Slices of `batch` one by one, against the batch.
void expect_slices(Call batch, const std::string& what) {
  const std::string said = batch.run();
  expect(said.empty(), what + ": " + said);
  for (int64_t s = 0; s < 2; s++) {
    Call one = batch;
    for_each_array(batch, [&](bool results, size_t i) {
      Tensor& tensor = side(one, results)[i];
      tensor = tensor.slice(tensor.dims[0] == 1 ? 0 : s, tensor.dims[0]);
      if (results) std::fill(tensor.words.begin(), tensor.words.end(), 0u);
    });
    const std::string alone = one.run();
    expect(alone.empty(), what + ", alone: " + alone);
    for (size_t r = 0; r < one.results.size(); r++)
      expect(same_words(one.results[r], batch.results[r].slice(s, 2)),
             what + ": a batch is its slices");
  }
}

void test_batches() {
  for (Call call : valid_calls({2})) {
    for (int64_t threads : {1, 3}) {
      call.num_threads = threads;
      expect_slices(call, call.name);
    }
    call.has_pool = false;
    expect_slices(call, call.name + " without a pool");
    for (size_t i = 0; i <= call.operands.size(); i++) {
      Call one = call, others = call;  // whose first slice stands for all
      for (size_t j = 0; j < call.operands.size(); j++) {
        Tensor& tensor = (i == j ? one : others).operands[j];
        tensor = tensor.slice(0, 2);
        tensor.dims.insert(tensor.dims.begin(), 1);
      }
      expect_slices(one, call.name + ", operand " + std::to_string(i) + " broadcast");
      expect_slices(others, call.name + ", operand " + std::to_string(i) + " not broadcast");
    }
  }
  for (Call call : valid_calls({2, 0})) expect(call.run().empty(), call.name + " of no slices");
}

// Two leading dimensions are as many slices as their product; where one is 1, it repeats.
void test_two_leading_dimensions() {
  for (const Call& call : valid_calls({2, 2}))
    for (size_t i = 0; i <= call.operands.size(); i++) {
      Call grid = call;
      if (i < call.operands.size()) {
        Tensor& tensor = grid.operands[i];
        tensor = tensor.slice(0, 2);
        tensor.dims.insert(tensor.dims.begin(), 1);
      }
      Call row = grid;
      for_each_array(grid, [&](bool results, size_t j) {
        Tensor& tensor = side(row, results)[j];
        const std::vector<uint32_t> words = tensor.words;
        if (tensor.dims[0] == 1)
          tensor.words.insert(tensor.words.end(), words.begin(), words.end());
        tensor.dims.erase(tensor.dims.begin());
        tensor.dims[0] = 4;
      });
      expect(grid.run().empty() && row.run().empty(), call.name + " with two leading dimensions");
      for (size_t r = 0; r < row.results.size(); r++)
        expect(same_words(grid.results[r], row.results[r]), call.name + ": 2 x 2 slices are 4");
    }
}

void test_arrays_are_refused() {
  for (const Call& call : valid_calls({2}))
    for_each_array(call, [&](bool results, size_t i) {
      const auto expect_refused = [&](const ArrayDamage& damage, bool with_memory) {
        Call bad = call;
        Tensor& tensor = side(bad, results)[i];
        damage.apply(tensor);
        if (with_memory) fit(tensor);
        expect(!bad.run().empty(), call.name + (results ? " result " : " operand ") +
                                       std::to_string(i) + ": " + damage.name);
      };
      for (const ArrayDamage& damage : kDamages) expect_refused(damage, true);
      if (results && call.results.size() > 1)
        expect_refused({"a slice beside two", [](Tensor& t) { t.dims[0] = 1; }}, true);
      for (const ArrayDamage& damage : kFakes) expect_refused(damage, false);
      if (!results) return;
      for_each_array(call, [&](bool other_results, size_t other) {
        if (other_results && other == i) return;
        Call bad = call;
        Tensor &a = side(bad, true)[i], &b = side(bad, other_results)[other];
        Tensor& larger = a.words.size() > b.words.size() ? a : b;
        (&larger == &a ? b : a).elsewhere = larger.words.data();
        expect(!bad.run().empty(), call.name + ": results share no memory");
      });
    });
}

// Does an attribute of the valid calls have such a value in others?
bool is_allowed(const std::string& name, int64_t number) {
  if (name == "activation") return number == 0;
  if (name == "cols") return number == 3;
  if (name == "pads") return std::abs(number) <= 3;
  return (name == "strides" || name == "dilation") && number == 3;
}

// Is this dimension one of a map's height and width, or of a kernel's? They may be more or fewer.
bool is_free(const Call& call, const Tensor& tensor, size_t dimension) {
  if (call.name.rfind("depthwise", 0) != 0 || tensor.dims.size() < 4) return false;
  if (tensor.dims.size() == 4) return dimension < 3;
  const size_t height = call.attributes.at("channels_last").numbers[0] ? 2 : 3;
  return dimension == height || dimension == height + 1;
}

void test_own_sizes() {
  for (const Call& call : valid_calls({1}))
    for_each_array(call, [&](bool results, size_t i) {
      for (int64_t more : {-1, 1})
        for (size_t d = 1; d < side(const_cast<Call&>(call), results)[i].dims.size(); d++) {
          Call other = call;
          Tensor& tensor = side(other, results)[i];
          const bool harmless = is_free(call, tensor, d);
          tensor.dims[d] += more;
          fit(tensor);
          expect(other.run().empty() == harmless, call.name + ": a size of its own");
        }
    });
}

void test_indices_and_attributes() {
  for (const Call& call : valid_calls({2})) {
    for (size_t i = 0; i < call.operands.size(); i++) {
      if (call.operands[i].dtype != XLA_FFI_DataType_S32) continue;
      for (size_t at = 0; at < call.operands[i].words.size(); at++)
        for (uint32_t word : {0xffffffffu, 0x7fffffffu, 0x80000000u, 100u, 0u}) {
          Call bad = call;
          bad.operands[i].words[at] = word;
          expect(!bad.run().empty() || word == 0, call.name + ": an index that is none");
        }
    }
    for (const auto& [name, attribute] : call.attributes) {
      if (attribute.kind == Attribute::kFlag) continue;
      const auto expect_refused = [&, name = name](std::vector<int64_t> numbers) {
        Call bad = call;
        bad.attributes[name].numbers = std::move(numbers);
        expect(!bad.run().empty(), call.name + ": " + name);
      };
      for (size_t at = 0; at < attribute.numbers.size(); at++)
        for (int64_t number :
             {int64_t{-1}, int64_t{0}, int64_t{3}, int64_t{1} << 31, kHuge, -kHuge}) {
          std::vector<int64_t> numbers = attribute.numbers;
          numbers[at] = number;
          if (!is_allowed(name, number)) expect_refused(numbers);
        }
      if (attribute.kind != Attribute::kNumbers) continue;
      expect_refused({1});
      expect_refused({1, 1, 1});
    }
  }
}

// Sizes whose products with 0 need no memory, and too many taps.
void test_far_sizes() {
  constexpr int64_t kFar = int64_t{1} << 31;
  struct Far {
    const char *call, *said;
    void (*apply)(Call&);
  };
  const Far all[] = {
      {"spmm", "within int32",
       [](Call& c) {
         c.attributes["cols"].numbers = {kFar};
         c.operands[4].dims = {2, 2, kFar, 0};
         c.results[0].dims = {2, 2, 4, 0};
       }},
      {"bcr", "within int32",
       [](Call& c) {
         c.attributes["cols"].numbers = {kFar};
         c.operands[7].dims = {2, 2, kFar, 0};
         c.results[0].dims = {2, 2, 4, 0};
       }},
      {"bcr", "within int32",
       [](Call& c) {
         c.attributes["rows"].numbers = {kFar};
         c.operands[6].dims = {2, 0};
         c.operands[7].dims = {2, 2, 3, 0};
         c.results[0].dims = {2, 2, kFar, 0};
       }},
      {"bcr", "run_starts must not be empty",
       [](Call& c) { c.operands[2].dims = c.operands[4].dims = c.operands[5].dims = {2, 0}; }},
      {"spmm", "too many elements",
       [](Call& c) {
         c.operands[0].dims = {2, kFar / 2, 2};
         c.operands[1].dims = {2, kFar / 2};
       }},
      {"depthwise", "within int32", [](Call& c) { c.operands[2].dims = {2, 0, 3, kFar, 9}; }},
      {"depthwise", "within int32", [](Call& c) { c.results[0].dims = {2, 0, 3, 6, kFar}; }},
      {"depthwise", "taps an axis", [](Call& c) { c.operands[0].dims = {2, 0, 2, 3}; }},
      {"depthwise", "taps an axis", [](Call& c) { c.operands[0].dims = {2, 3, 33, 3}; }},
  };
  const std::vector<Call> calls = valid_calls({2});
  for (const Far& far : all)
    for (const Call& call : calls) {
      if (call.name != far.call) continue;
      Call bad = call;
      far.apply(bad);
      if (bad.name == "depthwise")  // no images
        bad.operands[2].dims[1] = bad.results[0].dims[1] = 0;
      const std::string said = bad.run();
      expect(said.find(far.said) != std::string::npos, std::string(far.said) + ", but: " + said);
      break;  // channels first
    }
}

void test_handlers(const Kernels&) {
  test_batches();
  test_two_leading_dimensions();
  test_arrays_are_refused();
  test_own_sizes();
  test_indices_and_attributes();
  test_far_sizes();
  for (int64_t trial = 0; trial < 1000; trial++) {
    const std::vector<uint8_t> bytes = random_bytes(40);
    call_by_bytes(bytes.data(), bytes.size());
  }
  expect(living_errors == 0, "errors are destroyed once");
}

const Test handlers(test_handlers);

}  // namespace
}  // namespace sparsejax::test
