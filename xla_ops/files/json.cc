// Parses JSON; see json.h.
#include "files/json.h"

namespace sparsejax {
namespace {

constexpr int kMostDepth = 32;
constexpr int64_t kMostDigits = 18;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

int hex_digit(char c) {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

// The code of the four hexadecimal digits at `at`, -1 where there are none.
int32_t hex_code(std::string_view text, size_t at) {
  if (at + 4 > text.size()) return -1;
  int32_t code = 0;
  for (size_t i = at; i < at + 4; i++) {
    if (hex_digit(text[i]) < 0) return -1;
    code = code * 16 + hex_digit(text[i]);
  }
  return code;
}

class Parser {
 public:
  Parser(std::string_view text, std::vector<JsonToken>& tokens) : text_(text), tokens_(tokens) {}

  std::string run() {
    const bool fine = value(0);
    space();
    if (fine && at_ == text_.size()) return "";
    return "is no JSON of whole numbers and text at character " + std::to_string(at_);
  }

 private:
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool skip(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    at_++;
    return true;
  }
  void space() {
    while (peek() == ' ' || peek() == '\n' || peek() == '\r' || peek() == '\t') at_++;
  }
  uint32_t add(JsonKind kind) {
    tokens_.push_back({kind, static_cast<uint32_t>(at_), 0, 0});
    return static_cast<uint32_t>(tokens_.size() - 1);
  }
  bool finish(uint32_t index, size_t end) {
    tokens_[index].end = static_cast<uint32_t>(end);
    tokens_[index].next = static_cast<uint32_t>(tokens_.size());
    return true;
  }

  bool value(int depth) {
    space();
    switch (peek()) {
      case '{':
        return depth < kMostDepth && group(JsonKind::kObject, '}', depth);
      case '[':
        return depth < kMostDepth && group(JsonKind::kList, ']', depth);
      case '"':
        return string();
      case 'n':
        return word("null", JsonKind::kNull);
      case 't':
        return word("true", JsonKind::kTrue);
      case 'f':
        return word("false", JsonKind::kFalse);
      default:
        return number();
    }
  }

  bool group(JsonKind kind, char end, int depth) {
    const uint32_t index = add(kind);
    at_++;
    space();
    if (!skip(end)) {
      do {
        if (kind == JsonKind::kObject && !name()) return false;
        if (!value(depth + 1)) return false;
        space();
      } while (skip(','));
      if (!skip(end)) return false;
    }
    return finish(index, at_);
  }

  bool name() {
    space();
    if (peek() != '"' || !string()) return false;
    space();
    return skip(':');
  }

  bool string() {
    at_++;
    const uint32_t index = add(JsonKind::kString);
    while (at_ < text_.size() && text_[at_] != '"') {
      if (static_cast<unsigned char>(text_[at_]) < 0x20) return false;
      if (text_[at_++] == '\\' && !escape()) return false;
    }
    finish(index, at_);
    return skip('"');
  }

  bool escape() {
    const char c = peek();
    if (c == 'u') {
      if (hex_code(text_, at_ + 1) < 0) return false;
      at_ += 5;
      return true;
    }
    at_++;
    return c == '"' || c == '\\' || c == '/' || c == 'b' || c == 'f' || c == 'n' || c == 'r' ||
           c == 't';
  }

  bool word(std::string_view expected, JsonKind kind) {
    if (text_.substr(at_, expected.size()) != expected) return false;
    const uint32_t index = add(kind);
    at_ += expected.size();
    return finish(index, at_);
  }

  bool number() {
    const uint32_t index = add(JsonKind::kNumber);
    skip('-');
    const size_t first = at_;
    while (is_digit(peek())) at_++;
    const size_t digits = at_ - first;
    const bool fraction = peek() == '.' || peek() == 'e' || peek() == 'E';
    return digits > 0 && digits <= kMostDigits && !fraction && finish(index, at_);
  }

  std::string_view text_;
  std::vector<JsonToken>& tokens_;
  size_t at_ = 0;
};

void append_utf8(std::string& out, uint32_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
    return;
  }
  const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  const uint32_t mark[] = {0, 0xC0, 0xE0, 0xF0};
  out += static_cast<char>(mark[more] | code >> (6 * more));
  for (int i = more - 1; i >= 0; i--) out += static_cast<char>(0x80 | (code >> (6 * i) & 0x3F));
}

// Appends what the escape behind a backslash at `at` stands for; where it ends.
size_t append_escape(std::string& out, std::string_view raw, size_t at) {
  constexpr std::string_view kNames = "bfnrt", kMeanings = "\b\f\n\r\t";
  if (raw[at] != 'u') {
    const size_t known = kNames.find(raw[at]);
    out += known == std::string_view::npos ? raw[at] : kMeanings[known];
    return at + 1;
  }
  int32_t code = hex_code(raw, at + 1);
  at += 5;
  const int32_t low = raw.substr(at, 2) == "\\u" ? hex_code(raw, at + 2) : -1;
  if (code >= 0xD800 && code < 0xDC00 && low >= 0xDC00 && low < 0xE000) {
    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    at += 6;
  }
  append_utf8(out, static_cast<uint32_t>(code));
  return at;
}

}  // namespace

std::string JsonDocument::parse(std::string text) {
  text_ = std::move(text);
  tokens_.clear();
  if (text_.size() >= UINT32_MAX) return "is too long";
  const std::string wrong = Parser(text_, tokens_).run();
  if (!wrong.empty()) tokens_.clear();
  return wrong;
}

JsonKind Json::kind() const { return document_ ? token().kind : JsonKind::kMissing; }

std::string_view Json::raw() const {
  return std::string_view(document_->text_).substr(token().begin, token().end - token().begin);
}

int64_t Json::number() const {
  if (!is_number()) return 0;
  const std::string_view digits = raw();
  const bool negative = digits[0] == '-';
  int64_t value = 0;
  for (size_t i = negative; i < digits.size(); i++) value = 10 * value + (digits[i] - '0');
  return negative ? -value : value;
}

std::string Json::text() const {
  std::string out;
  if (!is_string()) return out;
  const std::string_view from = raw();
  for (size_t i = 0; i < from.size();) {
    if (from[i] == '\\') {
      i = append_escape(out, from, i + 1);
    } else {
      out += from[i++];
    }
  }
  return out;
}

Json Json::member(std::string_view name) const {
  Json found;
  for_members([&](Json key, Json value) {
    if (found.kind() == JsonKind::kMissing && key.raw() == name) found = value;
  });
  return found;
}

int64_t Json::size() const {
  int64_t count = 0;
  for_items([&](Json) { count++; });
  for_members([&](Json, Json) { count++; });
  return count;
}

}  // namespace sparsejax
