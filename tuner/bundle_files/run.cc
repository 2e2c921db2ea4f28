// Checks this bundle without Python: loads the module, compares its outputs on samples.npz with ONNX Runtime's, and times
// it. Exit status 0: OK; 1: something differs. Built by CMakeLists.txt; run in the bundle's folder, or with that as its
// argument. What a program of your own needs is the class Network.

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/json.h>
#include <tvm/ffi/extra/module.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace ffi = tvm::ffi;
namespace json = tvm::ffi::json;

// The network of a module. Tensors are dense and row-major, in the order of the manifest's inputs and outputs. Not for
// several threads at a time: it has threads of its own (TVM_NUM_THREADS).
class Network {
 public:
  explicit Network(const std::string& path) : library_(ffi::Module::LoadFromFile(path)) {
    const int pooled = 2;  // memory of a run is kept for the next one
    machine_ = library_->GetFunction("vm_load_executable").value()().cast<ffi::Module>();
    machine_.value()->GetFunction("vm_initialization").value()(static_cast<int>(kDLCPU), 0, pooled);
    main_ = machine_.value()->GetFunction("main").value();
  }

  std::vector<ffi::Tensor> operator()(const std::vector<ffi::Tensor>& inputs) const {
    std::vector<ffi::AnyView> arguments(inputs.begin(), inputs.end());
    ffi::Any returned;
    main_.value().CallPacked(arguments.data(), static_cast<int32_t>(arguments.size()), &returned);
    if (auto single = returned.as<ffi::Tensor>()) return {*single};
    std::vector<ffi::Tensor> outputs;
    for (ffi::Tensor output : returned.cast<ffi::Array<ffi::Tensor>>()) outputs.push_back(output);
    return outputs;
  }

 private:
  ffi::Module library_;
  ffi::Optional<ffi::Module> machine_;
  ffi::Optional<ffi::Function> main_;
};

struct AlignedMemory {
  void AllocData(DLTensor* tensor) {
    // Compiled code loads whole vectors: 64 bytes suit every CPU.
    tensor->data = std::aligned_alloc(64, (ffi::GetDataSize(*tensor) + 63) / 64 * 64);
    if (tensor->data == nullptr) throw std::bad_alloc();
  }
  void FreeData(DLTensor* tensor) { std::free(tensor->data); }
};

// An array of an .npz file.
struct Array {
  DLDataType dtype;
  std::vector<int64_t> shape;
  const char* data;

  // One sample: the array without its leading axis, copied.
  ffi::Tensor sample(int64_t index) const {
    ffi::Shape inner(shape.begin() + 1, shape.end());
    ffi::Tensor tensor = ffi::Tensor::FromNDAlloc(AlignedMemory(), inner, dtype, DLDevice{kDLCPU, 0});
    size_t bytes = ffi::GetDataSize(tensor.numel(), dtype);
    std::memcpy(tensor.data_ptr(), data + index * bytes, bytes);
    return tensor;
  }
};

std::string read_file(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw std::runtime_error(path + " cannot be read");
  return {std::istreambuf_iterator<char>(stream), {}};
}

// NumPy's .npz files as numpy.savez writes them: ZIP, stored. Arrays point into the file's bytes.
class Npz {
 public:
  explicit Npz(const std::string& path) : bytes_(read_file(path)) {
    size_t end = bytes_.rfind("PK\x05\x06");
    if (end == std::string::npos) throw std::runtime_error(path + " is no .npz file");
    size_t at = number<uint32_t>(end + 16);
    for (int left = number<uint16_t>(end + 10); left > 0; --left) {
      if (number<uint16_t>(at + 10) != 0) throw std::runtime_error(path + " is compressed");
      size_t name_size = number<uint16_t>(at + 28), local = number<uint32_t>(at + 42);
      std::string name(within(at + 46, name_size), name_size);
      size_t start = local + 30 + number<uint16_t>(local + 26) + number<uint16_t>(local + 28);
      arrays_[name.substr(0, name.rfind(".npy"))] = parse(start);
      at += 46 + name_size + number<uint16_t>(at + 30) + number<uint16_t>(at + 32);
    }
  }

  const Array& operator[](const std::string& name) const { return arrays_.at(name); }

 private:
  template <typename T>
  T number(size_t at) const {
    T value;
    std::memcpy(&value, within(at, sizeof(T)), sizeof(T));
    return value;
  }

  const char* within(size_t at, size_t size) const {
    if (at > bytes_.size() || size > bytes_.size() - at) throw std::runtime_error("an .npz file is cut off");
    return bytes_.data() + at;
  }

  // A .npy file: magic and version, the header as a Python dictionary, data.
  Array parse(size_t at) const {
    bool first_version = bytes_.at(at + 6) == 1;
    size_t size = first_version ? number<uint16_t>(at + 8) : number<uint32_t>(at + 8);
    size_t start = at + (first_version ? 10 : 12);
    std::string header(within(start, size), size);
    size_t descr = header.find('\'', header.find("'descr':") + 8) + 1, open = header.find('(');
    if (header.find("'fortran_order': False") == std::string::npos) throw std::runtime_error("an array is not row-major");
    static const std::map<char, uint8_t> kinds = {{'f', kDLFloat}, {'i', kDLInt}, {'u', kDLUInt}, {'b', kDLBool}};
    Array array;
    uint8_t item_bytes = static_cast<uint8_t>(std::stoi(header.substr(descr + 2)));
    array.dtype = {kinds.at(header.at(descr + 1)), static_cast<uint8_t>(item_bytes * 8), 1};
    const char* text = header.c_str() + open + 1;
    for (char* rest; ; text = rest) {
      while (*text == ',' || *text == ' ') ++text;
      if (*text == ')' || *text == '\0') break;
      array.shape.push_back(std::strtoll(text, &rest, 10));
    }
    int64_t items = 1;
    for (int64_t extent : array.shape) items *= extent;
    array.data = within(start + size, static_cast<size_t>(items) * item_bytes);
    return array;
  }

  std::string bytes_;
  std::map<std::string, Array> arrays_;
};

template <typename T>
std::vector<double> converted(const ffi::Tensor& tensor) {
  const T* data = static_cast<const T*>(tensor.data_ptr());
  return std::vector<double>(data, data + tensor.numel());
}

std::vector<double> from_half(const ffi::Tensor& tensor) {
  const uint16_t* data = static_cast<const uint16_t*>(tensor.data_ptr());
  std::vector<double> values;
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    int exponent = data[i] >> 10 & 31, fraction = data[i] & 1023;
    double size = exponent == 31 ? (fraction ? NAN : INFINITY)
                                 : std::ldexp(exponent ? fraction + 1024 : fraction, (exponent ? exponent : 1) - 25);
    values.push_back(data[i] >> 15 ? -size : size);
  }
  return values;
}

std::vector<double> as_double(const ffi::Tensor& tensor) {
  DLDataType dtype = tensor.dtype();
  switch (dtype.code * 100 + dtype.bits) {
    case kDLFloat * 100 + 64: return converted<double>(tensor);
    case kDLFloat * 100 + 32: return converted<float>(tensor);
    case kDLFloat * 100 + 16: return from_half(tensor);
    case kDLInt * 100 + 64: return converted<int64_t>(tensor);
    case kDLInt * 100 + 32: return converted<int32_t>(tensor);
    case kDLInt * 100 + 16: return converted<int16_t>(tensor);
    case kDLInt * 100 + 8: return converted<int8_t>(tensor);
    case kDLUInt * 100 + 64: return converted<uint64_t>(tensor);
    case kDLUInt * 100 + 32: return converted<uint32_t>(tensor);
    case kDLUInt * 100 + 16: return converted<uint16_t>(tensor);
    case kDLUInt * 100 + 8:
    case kDLBool * 100 + 8: return converted<uint8_t>(tensor);
    default: throw std::runtime_error("an output has a type that is not compared here");
  }
}

// What is wrong with an output, in words; empty when it is right.
std::string difference(const ffi::Tensor& ours, const ffi::Tensor& expected, double tolerance) {
  DLDataType dtype = expected.dtype();
  if (ours.dtype().code != dtype.code || ours.dtype().bits != dtype.bits || ours.numel() != expected.numel())
    return "another type or size than expected";
  if (dtype.code != kDLFloat) {
    size_t bytes = ffi::GetDataSize(expected.numel(), dtype);
    return std::memcmp(ours.data_ptr(), expected.data_ptr(), bytes) ? "integers differ" : "";
  }
  std::vector<double> left = as_double(ours), right = as_double(expected);
  double error = 0, scale = 0;
  for (size_t i = 0; i < left.size(); ++i) {
    if (!std::isfinite(left[i])) return "holds NaN or infinity";
    error = std::max(error, std::fabs(left[i] - right[i]));
    scale = std::max(scale, std::fabs(right[i]));
  }
  if (error <= tolerance * scale) return "";
  char text[96];
  std::snprintf(text, sizeof text, "error %.3g exceeds %g x %.3g", error, tolerance, scale);
  return text;
}

json::Value field(const json::Value& object, const char* name) {
  return object.cast<json::Object>()[ffi::String(name)];
}

std::string text_of(const json::Value& value) { return value.cast<ffi::String>(); }

// The module that the manifest names; of object files, what somebody linked.
std::string module_path(const std::string& folder, const std::string& name) {
  if (name != "module.tar") return folder + "/" + name;
  for (const char* linked : {"module.so", "module.dylib", "module.dll"})
    if (std::ifstream(folder + "/" + linked)) return folder + "/" + linked;
  throw std::runtime_error("module.tar holds object files: link them first, as README.md says");
}

double median_us(const Network& network, const std::vector<ffi::Tensor>& inputs, double seconds, size_t* runs) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> times_us;
  Clock::time_point begin = Clock::now(), last = begin;
  while (times_us.empty() || std::chrono::duration<double>(last - begin).count() < seconds) {
    Clock::time_point started = Clock::now();
    network(inputs);
    last = Clock::now();
    times_us.push_back(std::chrono::duration<double, std::micro>(last - started).count());
  }
  *runs = times_us.size();
  std::nth_element(times_us.begin(), times_us.begin() + *runs / 2, times_us.end());
  return times_us[*runs / 2];
}

int check(const std::string& folder) {
  json::Value manifest = json::Parse(read_file(folder + "/manifest.json"));
  // Read when the first function runs in parallel: TVM's own default would be half of the cores on x86.
  setenv("TVM_NUM_THREADS", std::to_string(field(manifest, "threads").cast<int64_t>()).c_str(), 0);
  setenv("TVM_BIND_THREADS", "0", 0);
  Network network(module_path(folder, text_of(field(manifest, "module"))));
  Npz samples(folder + "/samples.npz");

  json::Array inputs = field(manifest, "inputs").cast<json::Array>();
  json::Array outputs = field(field(manifest, "numerics"), "outputs").cast<json::Array>();
  auto arguments = [&](int64_t sample) {
    std::vector<ffi::Tensor> tensors;
    for (const json::Value& input : inputs) tensors.push_back(samples["input." + text_of(field(input, "name"))].sample(sample));
    return tensors;
  };
  std::map<std::string, double> tolerances;
  for (const json::Value& output : outputs)
    tolerances[text_of(field(output, "name"))] = field(output, "tolerance").cast<double>();

  int wrong = 0;
  json::Array names = field(manifest, "outputs").cast<json::Array>();
  int64_t count = samples["output." + text_of(field(names[0], "name"))].shape.at(0);
  for (int64_t sample = 0; sample < count; ++sample) {
    std::vector<ffi::Tensor> returned = network(arguments(sample));
    for (size_t i = 0; i < returned.size(); ++i) {
      std::string name = text_of(field(names[i], "name"));
      std::string problem = difference(returned[i], samples["output." + name].sample(sample), tolerances.at(name));
      if (problem.empty()) continue;
      std::printf("WRONG: sample %d, output %s: %s\n", static_cast<int>(sample), name.c_str(), problem.c_str());
      ++wrong;
    }
  }
  size_t runs;
  double latency_us = median_us(network, arguments(0), 1.0, &runs);
  std::printf("latency %.1f us (median of %zu runs, %s threads)\n", latency_us, runs, std::getenv("TVM_NUM_THREADS"));
  if (wrong == 0)
    std::printf("OK: %s on %s agrees with ONNX Runtime\n", text_of(field(field(manifest, "model"), "name")).c_str(),
                text_of(field(field(manifest, "target"), "name")).c_str());
  return wrong == 0 ? 0 : 1;
}

int main(int count, char** arguments) {
  try {
    return check(count > 1 ? arguments[1] : ".");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "WRONG: %s\n", error.what());
    return 1;
  }
}
