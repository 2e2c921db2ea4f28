/* Times every function of a network in its place: linked into the module, so that it is there on every device, and costs
 * two readings of the clock a call (run.py --profile).
 *
 * `tessera_profile_attach` sets the instrument of a virtual machine, which TVM calls with every function, its name, and
 * whether it is about to run. `tessera_profile_take` copies what the calls since the last time took (µs) into a float64
 * tensor and returns how many they were; `tessera_profile_name` tells what the n-th of them called.
 * `tessera_profile_best_us` is the shortest call of a module's function, by its name, with what else is given: of 0.2 s
 * of them, and of eight at least.
 */
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <tvm/ffi/c_api.h>

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif
#define MAX_CALLS 8192
#define NAME_BYTES 256
#define BEST_OF_US 2e5

static char names[MAX_CALLS][NAME_BYTES];
static double times_us[MAX_CALLS];
static int64_t calls;
static struct timespec started;

static void returned(TVMFFIAny* result, int64_t value) {
  result->type_index = kTVMFFIInt;
  result->zero_padding = 0;
  result->v_int64 = value;
}

static double elapsed_us(const struct timespec* from, const struct timespec* to) {
  return (to->tv_sec - from->tv_sec) * 1e6 + (to->tv_nsec - from->tv_nsec) * 1e-3;
}

static TVMFFIByteArray text_of(const TVMFFIAny* value) {
  TVMFFIByteArray text = {"", 0};
  switch (value->type_index) {
    case kTVMFFIRawStr:
      text.data = value->v_c_str;
      text.size = strlen(text.data);
      break;
    case kTVMFFISmallStr:
      text.data = value->v_bytes;
      text.size = value->small_str_len;
      break;
    case kTVMFFIStr:
      text = *(const TVMFFIByteArray*)((const char*)value->v_obj + sizeof(TVMFFIObject));
      break;
    default:
      break;
  }
  return text;
}

static int instrument(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  returned(result, 0);
  if (arguments[2].v_int64) {
    clock_gettime(CLOCK_MONOTONIC, &started);
  } else if (calls < MAX_CALLS) {
    TVMFFIByteArray name = text_of(&arguments[1]);
    size_t size = name.size < NAME_BYTES - 1 ? name.size : NAME_BYTES - 1;
    memcpy(names[calls], name.data, size);
    names[calls][size] = 0;
    times_us[calls++] = elapsed_us(&started, &now);
  }
  return 0;
}

/* A function of a module or of what it imports; the caller's to release. */
static int find(const TVMFFIAny* module, TVMFFIAny name, TVMFFIAny* found) {
  static const TVMFFIByteArray getter = {"ffi.ModuleGetFunction", sizeof "ffi.ModuleGetFunction" - 1};
  TVMFFIObjectHandle get = NULL;
  TVMFFIAny query[3] = {*module, name, {kTVMFFIBool}};
  query[2].v_int64 = 1;
  int failed = TVMFFIFunctionGetGlobal(&getter, &get) || TVMFFIFunctionCall(get, query, 3, found);
  if (get) TVMFFIObjectDecRef(get);
  return failed || found->type_index != kTVMFFIFunction;
}

EXPORT int __tvm_ffi_tessera_profile_attach(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  TVMFFIObjectHandle ours = NULL;
  TVMFFIAny name = {kTVMFFIRawStr}, setter = {kTVMFFINone}, argument = {kTVMFFIFunction};
  name.v_c_str = "set_instrument";
  int failed = find(&arguments[0], name, &setter) || TVMFFIFunctionCreate(NULL, instrument, NULL, &ours);
  if (!failed) {
    argument.v_obj = (TVMFFIObject*)ours;
    failed = TVMFFIFunctionCall(setter.v_obj, &argument, 1, result);
  }
  if (ours) TVMFFIObjectDecRef(ours);
  if (setter.type_index == kTVMFFIFunction) TVMFFIObjectDecRef(setter.v_obj);
  return failed ? -1 : 0;
}

EXPORT int __tvm_ffi_tessera_profile_best_us(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  TVMFFIAny function = {kTVMFFINone}, nothing;
  if (find(&arguments[0], arguments[1], &function)) return -1;
  double best_us = 1e300, spent_us = 0;
  int failed = 0;
  for (int run = 0; (run < 8 || spent_us < BEST_OF_US) && !failed; ++run) {
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    returned(&nothing, 0);
    failed = TVMFFIFunctionCall(function.v_obj, (TVMFFIAny*)arguments + 2, count - 2, &nothing);
    clock_gettime(CLOCK_MONOTONIC, &end);
    double us = elapsed_us(&begin, &end);
    spent_us += us;
    if (us < best_us) best_us = us;
  }
  TVMFFIObjectDecRef(function.v_obj);
  result->type_index = kTVMFFIFloat;
  result->zero_padding = 0;
  result->v_float64 = best_us;
  return failed ? -1 : 0;
}

EXPORT int __tvm_ffi_tessera_profile_take(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  const DLTensor* tensor = arguments[0].type_index == kTVMFFIDLTensorPtr
                               ? (const DLTensor*)arguments[0].v_ptr
                               : (const DLTensor*)((const char*)arguments[0].v_obj + sizeof(TVMFFIObject));
  int64_t room = tensor->shape[0];
  memcpy((char*)tensor->data + tensor->byte_offset, times_us, (calls < room ? calls : room) * sizeof(double));
  returned(result, calls);
  calls = 0;
  return 0;
}

EXPORT int __tvm_ffi_tessera_profile_name(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  int64_t index = arguments[0].v_int64;
  TVMFFIByteArray text = {"", 0};
  if (index >= 0 && index < MAX_CALLS) {
    text.data = names[index];
    text.size = strlen(text.data);
  }
  return TVMFFIStringFromByteArray(&text, result);
}
