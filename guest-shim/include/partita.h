/* What a program can tell Partita besides MPI. */
#ifndef PARTITA_H
#define PARTITA_H

#ifdef __cplusplus
extern "C" {
#endif

/* Adds units of work (whatever the program calls one) to the progress that the coordinator sees. Between MPI_Init and
   MPI_Finalize only. */
void partita_report_progress(unsigned long long units);

#ifdef __cplusplus
}
#endif

#endif
