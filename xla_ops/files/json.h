// JSON as the headers of our files need it: objects, lists, strings and whole numbers.
//
// A document is a list of tokens over its text: about 16 bytes for each two characters at most, and
// no memory of their own for the parts. A part that is missing or of another kind answers as if it
// were empty; whoever needs it says so.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sparsejax {

enum class JsonKind : uint8_t { kMissing, kNull, kFalse, kTrue, kNumber, kString, kList, kObject };

struct JsonToken {
  JsonKind kind;
  uint32_t begin, end;  // in the text; of strings without the quotes
  uint32_t next;        // the token behind this value
};

class JsonDocument;

// A value in a document, which must outlive it.
class Json {
 public:
  Json() = default;
  Json(const JsonDocument* document, uint32_t index) : document_(document), index_(index) {}

  JsonKind kind() const;
  bool is_number() const { return kind() == JsonKind::kNumber; }
  bool is_string() const { return kind() == JsonKind::kString; }
  int64_t number() const;    // 0 unless it is one
  std::string text() const;  // of a string, its escapes resolved; else empty
  Json member(std::string_view name) const;
  int64_t size() const;  // of a list or an object

  // f(item) for each of a list.
  template <class F>
  void for_items(const F& f) const;
  // f(name, value) for each of an object, the name as a Json string.
  template <class F>
  void for_members(const F& f) const;

 private:
  const JsonToken& token() const;
  std::string_view raw() const;

  const JsonDocument* document_ = nullptr;
  uint32_t index_ = 0;
};

class JsonDocument {
 public:
  // What is wrong with the text; empty if nothing is.
  [[nodiscard]] std::string parse(std::string text);
  Json root() const { return tokens_.empty() ? Json() : Json(this, 0); }

 private:
  friend class Json;
  std::string text_;
  std::vector<JsonToken> tokens_;
};

inline const JsonToken& Json::token() const { return document_->tokens_[index_]; }

template <class F>
void Json::for_items(const F& f) const {
  if (kind() != JsonKind::kList) return;
  for (uint32_t i = index_ + 1; i < token().next; i = document_->tokens_[i].next)
    f(Json(document_, i));
}

template <class F>
void Json::for_members(const F& f) const {
  if (kind() != JsonKind::kObject) return;
  for (uint32_t i = index_ + 1; i < token().next; i = document_->tokens_[i + 1].next)
    f(Json(document_, i), Json(document_, i + 1));
}

}  // namespace sparsejax
