/* streamkws in C: keywords heard in a stream of audio, 16 kHz, mono, 16-bit. Nothing but a C library and libstreamkws.
 *
 *     streamkws *stream = streamkws_open("model.image");     NULL: errno says why
 *     int n = streamkws_push(stream, samples, n_samples, detections, room);
 *     streamkws_close(stream);
 *
 * A stream is heard by one thread at a time; each has memory of its own. Written by `streamkws export --c`, with the
 * library and the model's image beside it, which belong together.
 */
#ifndef STREAMKWS_H
#define STREAMKWS_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STREAMKWS_KINDS(kind) /* the kinds of CPU that the library has code for: bit, name */

#define STREAMKWS_MAGIC "streamkws image 1"
#define STREAMKWS_ALIGNMENT 64

typedef struct {
    const char *keyword;
    double start, end, peak; /* seconds from the stream's first sample */
    float score;             /* 0 to 1 */
} streamkws_detection;

typedef struct { /* the beginning of an image; places are in bytes from it */
    char magic[24];
    int64_t bytes, most_samples, words, n_pointers, pointers, weights_word, weights, weights_bytes, n_kinds;
    int64_t events, n_keywords, keywords, keyword_bytes, durations;
    double first_end_samples, step_samples, sample_rate, delay_steps; /* what a step of the network has heard */
} streamkws_image;

typedef struct { /* an event as the library writes it */
    int64_t keyword, peak_step, step;
    float score;
    int32_t near;
} streamkws_event;

typedef int64_t streamkws_function(int64_t, int64_t, int64_t, int64_t, int64_t);

typedef struct {
    void *memory;
    streamkws_image *image;
    streamkws_function *detect;
} streamkws;

int64_t streamkws_cpu_kinds(void);
#define STREAMKWS_DECLARE(bit, name) streamkws_function streamkws_##name##_detect;
STREAMKWS_KINDS(STREAMKWS_DECLARE)

static inline void *streamkws_at(const streamkws *stream, int64_t place) { return (char *)stream->image + place; }

static inline void streamkws_close(streamkws *stream) {
    if (stream) free(stream->memory);
    free(stream);
}

/* Set the addresses in an image that has been read, and choose the functions and the weights for this CPU. */
static inline int streamkws_start(streamkws *stream) {
    streamkws_image *image = stream->image;
    int64_t *words = (int64_t *)streamkws_at(stream, image->words), *pointers, i, kind = -1, found = -1;
    const int64_t own = streamkws_cpu_kinds();
#define STREAMKWS_CHOOSE(bit, name) \
    kind++; \
    if (own >> (bit) & 1) stream->detect = streamkws_##name##_detect, found = kind;
    STREAMKWS_KINDS(STREAMKWS_CHOOSE)
    if (found < 0 || kind + 1 != image->n_kinds) return 0;
    pointers = (int64_t *)streamkws_at(stream, image->pointers);
    for (i = 0; i < image->n_pointers; i++) words[pointers[i]] += (int64_t)(intptr_t)image;
    words[image->weights_word] = (int64_t)(intptr_t)streamkws_at(stream, image->weights + found * image->weights_bytes);
    return 1;
}

/* A new stream, with the model of an image. NULL where the file cannot be read, or does not belong to this library. */
static inline streamkws *streamkws_open(const char *path) {
    FILE *file = fopen(path, "rb");
    streamkws *stream = file ? (streamkws *)calloc(1, sizeof *stream) : NULL;
    streamkws_image head;
    int good = 0;
    if (!file) return NULL;
    errno = 0;
    if (stream && fread(&head, sizeof head, 1, file) == 1 && !strcmp(head.magic, STREAMKWS_MAGIC) &&
        (stream->memory = malloc(head.bytes + STREAMKWS_ALIGNMENT))) {
        uintptr_t start = (uintptr_t)stream->memory + STREAMKWS_ALIGNMENT - 1;
        stream->image = (streamkws_image *)(start / STREAMKWS_ALIGNMENT * STREAMKWS_ALIGNMENT);
        rewind(file);
        good = fread(stream->image, 1, head.bytes, file) == (size_t)head.bytes && streamkws_start(stream);
    }
    fclose(file);
    if (good) return stream;
    if (!errno) errno = EINVAL;
    streamkws_close(stream);
    return NULL;
}

/* How much audio a step of the network has heard. */
static inline double streamkws_seconds(const streamkws_image *image, double step) {
    return (image->first_end_samples + step * image->step_samples) / image->sample_rate;
}

/* Hear samples, and write the detections that they complete, at most room. Returns how many there were. */
static inline int streamkws_push(streamkws *stream, const int16_t *samples, size_t n_samples,
                                 streamkws_detection *detections, int room) {
    const streamkws_image *image = stream->image;
    const streamkws_event *events = (const streamkws_event *)streamkws_at(stream, image->events);
    const double *durations = (const double *)streamkws_at(stream, image->durations);
    int n = 0;
    while (n_samples) {
        size_t take = n_samples < (size_t)image->most_samples ? n_samples : (size_t)image->most_samples;
        int64_t i, words = (int64_t)(intptr_t)streamkws_at(stream, image->words);
        int64_t n_events = stream->detect(words, (int64_t)(intptr_t)samples, (int64_t)take, 0, 0);
        for (i = 0; i < n_events; i++, n++) {
            double peak = streamkws_seconds(image, (double)events[i].peak_step);
            double end = streamkws_seconds(image, (double)events[i].peak_step - image->delay_steps);
            double start = end - durations[events[i].keyword];
            if (n >= room) continue;
            detections[n].keyword =
                (const char *)streamkws_at(stream, image->keywords + events[i].keyword * image->keyword_bytes);
            detections[n].start = start > 0 ? start : 0;
            detections[n].end = end > 0 ? end : 0;
            detections[n].peak = peak;
            detections[n].score = events[i].score;
        }
        samples += take;
        n_samples -= take;
    }
    return n;
}

#endif
