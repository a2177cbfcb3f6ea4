// simdjson's DOM over the files of a folder: a line a file, its name, a tab, nanoseconds of one parse with the envelope
// looked up. The bodies are loaded with the padding that simdjson wants: no copy is timed.
#include <simdjson.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <string_view>

using Clock = std::chrono::steady_clock;

static volatile size_t seen;

static bool envelope(simdjson::dom::parser &parser, const simdjson::padded_string &body) {
  simdjson::dom::object top;
  if (parser.parse(body).get(top)) return false;
  std::string_view text;
  if (top["jsonrpc"].get(text)) return false;
  size_t found = text.size();
  simdjson::dom::element id;
  if (!top["id"].get(id)) found++;
  if (!top["method"].get(text)) found += text.size();
  simdjson::dom::object params, arguments;
  if (!top["params"].get(params)) {
    if (!params["name"].get(text)) found += text.size();
    if (!params["arguments"].get(arguments)) found++;
  }
  seen = found;
  return true;
}

int main(int count, char **words) {
  if (count != 2) return std::fputs("dom FOLDER\n", stderr), 2;
  for (const auto &file : std::filesystem::directory_iterator(words[1])) {
    simdjson::padded_string body;
    if (simdjson::padded_string::load(file.path().string()).get(body)) return 1;
    simdjson::dom::parser parser;
    double best = 1e300;
    for (int part = 0; part < 12; part++) {
      const auto begun = Clock::now();
      long reads = 0;
      while (Clock::now() - begun < std::chrono::milliseconds(4)) {
        for (int n = 0; n < 8; n++)
          if (!envelope(parser, body)) return std::fprintf(stderr, "refused: %s\n", file.path().c_str()), 1;
        reads += 8;
      }
      const double ns = std::chrono::duration<double, std::nano>(Clock::now() - begun).count() / reads;
      if (ns < best) best = ns;
    }
    std::printf("%s\t%.1f\n", file.path().filename().c_str(), best);
  }
}
