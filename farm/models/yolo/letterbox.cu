// Pixels of a batch to what the network takes: (n, C, H, W) of 0 to 1, RGB. Compiled at a worker's start by
// letterbox_kernel.py; letterbox_torch.py is the same arithmetic in plain torch.
//
// OUT_T holds the bits of a number: unsigned short of float16, unsigned int of float32. `table` has the number of each
// of the 256 values of a pixel, made on the same device by the division that Ultralytics makes.
#ifndef OUT_T
#define OUT_T unsigned int
#endif

// Where channel c of a pixel lies in the output: planes (NCHW), or one pixel after another (`last`: NHWC).
__device__ __forceinline__ long long position(int image, int y, int x, int c, int H, int W, int C, int last) {
    return last ? (((long long)image * H + y) * W + x) * C + c : (((long long)image * C + c) * H + y) * W + x;
}

// Letterboxed images (n, H, W, C). One thread a pixel. Grid: (W / blockDim.x rounded up, H, n).
// `reverse`: channel c of the output is channel C - 1 - c of the image (BGR to RGB).
extern "C" __global__ void convert(const unsigned char* pixels, const OUT_T* table, OUT_T* out, int H, int W, int C,
                                   int last, int reverse) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y, image = blockIdx.z;
    if (x >= W) return;
    const unsigned char* pixel = pixels + (((long long)image * H + y) * W + x) * C;
    for (int c = 0; c < C; ++c)
        out[position(image, y, x, reverse ? C - 1 - c : c, H, W, C, last)] = table[pixel[c]];
}

// OpenCV's resize(INTER_LINEAR) of uint8 along one axis: the two neighbours of place d, and their weights of 11 bits.
// Rounded step by step, without fused multiplications, as the host rounds. Only columns are clamped before weighting.
__device__ __forceinline__ void neighbours(int d, double scale, int size, bool clamped, int* first, int* second,
                                           int* weight, int* weight_of_second) {
    float f = __double2float_rn(__dadd_rn(__dmul_rn((double)d + 0.5, scale), -0.5));
    int s = __float2int_rd(f);
    f = __fsub_rn(f, (float)s);
    if (clamped && s < 0) { f = 0.f; s = 0; }
    if (clamped && s >= size - 1) { f = 0.f; s = size - 1; }
    *weight = __float2int_rn(__fmul_rn(__fsub_rn(1.f, f), 2048.f));
    *weight_of_second = __float2int_rn(__fmul_rn(f, 2048.f));
    *first = min(max(s, 0), size - 1);
    *second = min(max(s + 1, 0), size - 1);
}

// Images as a decoder left them, each at an address of its own. One thread a pixel of the output. Grid as above.
// meta: 10 numbers an image: address, height, width, resized height, resized width, top, left, resize (0 copy,
// 1 linear, 2 half), and the bits of the two float64 scales, across and down.
// `planar`: an image lies as (C, h, w), else as (h, w, C).
extern "C" __global__ void letterbox(const long long* meta, const OUT_T* table, OUT_T* out, int H, int W, int C,
                                     int last, int reverse, int planar, int padding) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y, image = blockIdx.z;
    if (x >= W) return;
    const long long* m = meta + 10 * image;
    const unsigned char* source = (const unsigned char*)m[0];
    int h = (int)m[1], w = (int)m[2], resize = (int)m[7], v = padding;
    int row = y - (int)m[5], column = x - (int)m[6];
    bool inside = row >= 0 && row < (int)m[3] && column >= 0 && column < (int)m[4];
    int x0 = column, x1 = column, y0 = row, y1 = row, a0 = 0, a1 = 0, b0 = 0, b1 = 0;
    if (resize == 1) {
        neighbours(column, __longlong_as_double(m[8]), w, true, &x0, &x1, &a0, &a1);
        neighbours(row, __longlong_as_double(m[9]), h, false, &y0, &y1, &b0, &b1);
    } else if (resize == 2) {
        x0 = 2 * column; x1 = x0 + 1; y0 = 2 * row; y1 = y0 + 1;
    }
    long long step = planar ? 1 : C, plane = planar ? (long long)h * w : 1;  // to the next pixel, to the next channel
    for (int c = 0; c < C; ++c) {
        if (inside) {
            const unsigned char* upper = source + (long long)y0 * w * step + c * plane;
            const unsigned char* lower = source + (long long)y1 * w * step + c * plane;
            int p = upper[x0 * step], q = upper[x1 * step], r = lower[x0 * step], s = lower[x1 * step];
            if (resize == 0) v = p;
            else if (resize == 2) v = (p + q + r + s + 2) >> 2;
            else {
                int t = p * a0 + q * a1, u = r * a0 + s * a1;
                v = min(max((((b0 * (t >> 4)) >> 16) + ((b1 * (u >> 4)) >> 16) + 2) >> 2, 0), 255);
            }
        }
        out[position(image, y, x, reverse ? C - 1 - c : c, H, W, C, last)] = table[v];
    }
}
