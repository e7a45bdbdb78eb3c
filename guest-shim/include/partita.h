/* What a program can tell Partita besides MPI, and ask it.
 *
 * The functions are weak: a program that uses them links with any MPI library, and where they are absent PARTITA_CALL does nothing.
 * They return MPI_SUCCESS or an MPI error class, after the error handler of the communicator was called. All may be called between
 * MPI_Init and MPI_Finalize only; none but partita_share communicates, and none leaves the partition.
 */
#ifndef PARTITA_H
#define PARTITA_H

#include <mpi.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PARTITA_WEAK __attribute__((weak))

/* PARTITA_CALL(partita_share, (comm, &first, &count)): the call where there is Partita, MPI_SUCCESS and nothing elsewhere. */
#define PARTITA_CALL(function, arguments) ((function) ? (function) arguments : MPI_SUCCESS)

/* Adds units of work (whatever the program calls one) to the progress that the coordinator shows. */
PARTITA_WEAK void partita_report_progress(unsigned long long units);

/* Application-level balancing. A program that can shift work between its ranks counts it in units: rows, cells, particles.
 *
 *   partita_define_units   this rank has `count` of the application's `total` units, from number `first` on; again after a shift
 *   partita_report_units   it has computed `units` units since the last report, in `seconds` of elapsed time without waiting
 *   partita_share          which units it should have from now on: collective over a communicator of all ranks of the application.
 *                          Gives the coordinator's newest shares, in the order of the ranks, or the present ones */
PARTITA_WEAK int partita_define_units(int64_t total, int64_t first, int64_t count);
PARTITA_WEAK int partita_report_units(int64_t units, double seconds);
PARTITA_WEAK int partita_share(MPI_Comm comm, int64_t *first, int64_t *count);

/* Speed of this rank's host relative to the mean of the application's hosts; 1 while nobody knows. */
PARTITA_WEAK int partita_host_speed(double *relative);

/* Now is a good moment to move this rank (a pause waits some milliseconds for it); and: a move is unwelcome for so many seconds (0 takes that back). */
PARTITA_WEAK int partita_safe_point(void);
PARTITA_WEAK int partita_not_before(double seconds);

#ifdef __cplusplus
}
#endif

#endif
