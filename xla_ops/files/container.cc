// Reads safetensors; see container.h.
#include "files/container.h"

#include <algorithm>

#include "files/json.h"

namespace sparsejax {
namespace {

constexpr int64_t kMostHeader = 100000000;  // bytes, as safetensors itself has it

struct Type {
  const char* name;
  DType dtype;
  int64_t bytes;
};
constexpr Type kTypes[] = {{"F32", DType::kF32, 4},
                           {"F16", DType::kF16, 2},
                           {"U8", DType::kU8, 1},
                           {"U16", DType::kU16, 2}};

const Type* type_of(const std::string& name) {
  for (const Type& type : kTypes)
    if (name == type.name) return &type;
  return nullptr;
}

// The product of sizes, -1 unless it is one of at most `most`.
int64_t count_elements(Json shape, int64_t most) {
  int64_t elements = shape.kind() == JsonKind::kList ? 1 : -1;
  shape.for_items([&](Json size) {
    const int64_t n = size.is_number() ? size.number() : -1;
    if (elements < 0 || n < 0 || (n > 0 && elements > most / n)) {
      elements = -1;
    } else {
      elements *= n;
    }
  });
  return elements;
}

struct Range {
  int64_t begin, end;
  bool operator<(const Range& other) const {
    return begin != other.begin ? begin < other.begin : end < other.end;
  }
};

class Reader {
 public:
  Reader(const uint8_t* data, int64_t size, Container& container, Problem& problem)
      : data_(data), size_(size), container_(container), problem_(problem) {}

  void read(Json header) {
    problem_.need(header.kind() == JsonKind::kObject, "its header is no object");
    header.for_members([&](Json name, Json entry) {
      if (problem_.found()) return;
      if (name.text() == "__metadata__") {
        entry.for_members(
            [&](Json key, Json value) { container_.metadata.emplace(key.text(), value.text()); });
      } else {
        tensor(name.text(), entry);
      }
    });
    if (!problem_.found()) check_ranges();
  }

 private:
  void tensor(const std::string& name, Json entry) {
    const std::string said = "tensor '" + name + "' ";
    const Type* type = type_of(entry.member("dtype").text());
    if (!type) {
      problem_.fail(said + "is of a type this reader does not know, '" +
                    entry.member("dtype").text() + "'");
      return;
    }
    const Range range = range_of(entry.member("data_offsets"));
    const int64_t elements = count_elements(entry.member("shape"), size_);
    if (range.begin < 0 || elements < 0 || elements * type->bytes != range.end - range.begin) {
      problem_.fail(said + "does not lie in the file as its shape says");
      return;
    }
    const Tensor made = {type->dtype, data_ + range.begin, elements, range.end - range.begin};
    if (!container_.tensors.emplace(name, made).second) problem_.fail(said + "is there twice");
    ranges_.push_back(range);
  }

  // {-1, -1} unless it is a part of the data.
  Range range_of(Json offsets) const {
    Range range = {-1, -1};
    bool numbers = offsets.size() == 2;
    offsets.for_items([&](Json offset) {
      numbers = numbers && offset.is_number();
      (range.begin < 0 ? range.begin : range.end) = offset.number();
    });
    const bool inside =
        numbers && range.begin >= 0 && range.begin <= range.end && range.end <= size_;
    return inside ? range : Range{-1, -1};
  }

  void check_ranges() {
    std::make_heap(ranges_.begin(), ranges_.end());  // std::sort is 7 KB of WebAssembly
    std::sort_heap(ranges_.begin(), ranges_.end());
    int64_t end = 0;
    for (const Range& range : ranges_) {
      if (!problem_.need(range.begin == end, "its tensors overlap or leave holes")) return;
      end = range.end;
    }
    problem_.need(end == size_, "it is longer or shorter than its header says");
  }

  const uint8_t* data_;
  const int64_t size_;
  Container& container_;
  Problem& problem_;
  std::vector<Range> ranges_;
};

}  // namespace

bool read_container(const uint8_t* bytes, int64_t size, Container& container, Problem& problem) {
  if (!problem.need(size >= 8, "it is too short")) return false;
  uint64_t length = 0;
  for (int i = 7; i >= 0; i--) length = length << 8 | bytes[i];
  if (!problem.need(length <= kMostHeader && length <= static_cast<uint64_t>(size - 8),
                    "it ends within its header, or is no safetensors file"))
    return false;
  const auto header_bytes = static_cast<int64_t>(length);
  JsonDocument header;
  const std::string wrong =
      header.parse(std::string(reinterpret_cast<const char*>(bytes) + 8, length));
  if (!wrong.empty()) return problem.fail("its header " + wrong);
  Reader(bytes + 8 + header_bytes, size - 8 - header_bytes, container, problem).read(header.root());
  return !problem.found();
}

}  // namespace sparsejax
