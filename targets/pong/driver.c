/* Drives PufferLib's unmodified pong.h in batches: an array of its own struct, one Pong a lane.
 *
 * The caller owns the memory. It learns the struct's layout from pong_layout, fills in settings and pointers, and reads
 * and writes every field in place. rand(), which pong.h calls once a serve, is handed out lane by lane: from a tape,
 * from a stream of the lane's own, or, with no Draws, from the C library as in PufferLib itself.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static int drawn(void);
#define rand() drawn()
#include "pong.h"
#undef rand

/* One entry a lane. A lane that finds no value on the tape draws from its stream, and says so in `own`. */
typedef struct {
    const int32_t* tape;    /* what rand() returns; NULL: no tape */
    const uint8_t* taped;   /* whether the tape has a value for this lane */
    uint64_t* stream;       /* state of the lane's own generator */
    int32_t* value;         /* out: what rand() returned last */
    int32_t* count;         /* out: how often it was called */
} Draws;

static _Thread_local const Draws* draws = NULL;
static _Thread_local int lane = 0;

/* splitmix64 (Steele, Lea and Flood 2014); the upper 31 bits, which is rand()'s range in glibc. */
static int32_t from_stream(uint64_t* state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (int32_t)((z ^ (z >> 31)) >> 33);
}

static int drawn(void) {
    if (draws == NULL) return (rand)();
    int first = draws->count[lane]++ == 0;
    int taped = draws->tape != NULL && draws->taped[lane] && first;
    return draws->value[lane] = taped ? draws->tape[lane] : from_stream(&draws->stream[lane]);
}

#define FIELD(kind, name) kind " " #name, offsetof(Pong, name)
typedef struct { const char* name; size_t offset; } Field;
static const Field layout[] = {
    {FIELD("p", observations)}, {FIELD("p", actions)}, {FIELD("p", rewards)}, {FIELD("p", terminals)},
    {FIELD("f", log.perf)}, {FIELD("f", log.score)}, {FIELD("f", log.episode_return)},
    {FIELD("f", log.episode_length)}, {FIELD("f", log.n)},
    {FIELD("f", paddle_yl)}, {FIELD("f", paddle_yr)}, {FIELD("f", ball_x)}, {FIELD("f", ball_y)},
    {FIELD("f", ball_vx)}, {FIELD("f", ball_vy)}, {FIELD("u", score_l)}, {FIELD("u", score_r)},
    {FIELD("f", width)}, {FIELD("f", height)}, {FIELD("f", paddle_width)}, {FIELD("f", paddle_height)},
    {FIELD("f", ball_width)}, {FIELD("f", ball_height)}, {FIELD("f", paddle_speed)},
    {FIELD("f", ball_initial_speed_x)}, {FIELD("f", ball_initial_speed_y)}, {FIELD("f", ball_max_speed_y)},
    {FIELD("f", ball_speed_y_increment)}, {FIELD("u", max_score)}, {FIELD("f", min_paddle_y)},
    {FIELD("f", max_paddle_y)}, {FIELD("f", paddle_dir)}, {FIELD("i", tick)}, {FIELD("i", n_bounces)},
    {FIELD("i", win)}, {FIELD("i", frameskip)}, {FIELD("i", continuous)},
};

/* Field number i as "kind name" (p pointer, f float, i int, u unsigned) and its offset; NULL past the last. */
const char* pong_layout(size_t i, size_t* offset) {
    if (i >= sizeof(layout) / sizeof(layout[0])) return NULL;
    *offset = layout[i].offset;
    return layout[i].name;
}

size_t pong_size(void) { return sizeof(Pong); }

void pong_init(Pong* lanes, int n) {
    for (int i = 0; i < n; i++) init(&lanes[i]);
}

/* As PufferLib's vec_reset and vec_step (env_binding.h): one call of c_reset or c_step a lane. */
void pong_reset(Pong* lanes, int n, const Draws* from) {
    draws = from;
    for (lane = 0; lane < n; lane++) c_reset(&lanes[lane]);
}

void pong_step(Pong* lanes, int n, const Draws* from) {
    draws = from;
    for (lane = 0; lane < n; lane++) c_step(&lanes[lane]);
}

/* For timing C without Python: `steps` batched steps, the actions of step t being row t % rows of `table`. */
void pong_run(Pong* lanes, int n, long steps, const float* table, int rows, float* actions) {
    draws = NULL;
    for (long t = 0; t < steps; t++) {
        memcpy(actions, table + (size_t)(t % rows) * n, n * sizeof(float));
        for (int i = 0; i < n; i++) c_step(&lanes[i]);
    }
}
