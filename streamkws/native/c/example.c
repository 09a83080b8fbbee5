/* Says which keywords are in 16 kHz mono 16-bit audio on standard input, as they come:
 *
 *     cc -O2 example.c -o example -L. -lstreamkws -Wl,-rpath,'$ORIGIN'
 *     ffmpeg -i kitchen.flac -f s16le -ar 16000 -ac 1 - | ./example model.image
 */
#include "streamkws.h"

enum { BLOCK = 1280, ROOM = 16, TAIL = 16000 * 7 / 10 };

static void show(streamkws *stream, const int16_t *samples, size_t n_samples) {
    streamkws_detection heard[ROOM];
    int n = streamkws_push(stream, samples, n_samples, heard, ROOM), i;
    for (i = 0; i < n && i < ROOM; i++)
        printf("%9.2f s  %-14s %.2f\n", heard[i].start, heard[i].keyword, heard[i].score);
    fflush(stdout);
}

int main(int n_arguments, char **arguments) {
    static int16_t block[BLOCK], silence[TAIL];
    streamkws *stream;
    size_t n;
    if (n_arguments != 2) {
        fprintf(stderr, "expected one argument, a model's image\n");
        return 2;
    }
    stream = streamkws_open(arguments[1]);
    if (!stream) {
        perror(arguments[1]);
        return 1;
    }
    while ((n = fread(block, sizeof *block, BLOCK, stdin)) > 0)
        show(stream, block, n);
    show(stream, silence, TAIL); /* a keyword is known a little after its end */
    streamkws_close(stream);
    return 0;
}
