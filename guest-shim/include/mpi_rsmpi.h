/*
 * What the bindings of the Rust crate "mpi" mention and this library does not have. Only mpi.h includes this file, when
 * PARTITA_RSMPI is defined. A program that uses one of these functions does not link, and the linker names the function.
 */
#ifndef PARTITA_MPI_RSMPI_H
#define PARTITA_MPI_RSMPI_H

typedef struct MPI_ABI_Win *MPI_Win;
typedef struct MPI_ABI_File *MPI_File;

#define MPI_WIN_NULL      ((MPI_Win)0x110)
#define MPI_FILE_NULL     ((MPI_File)0x118)
#define MPI_ARGV_NULL     ((char **)0)
#define MPI_ARGVS_NULL    ((char ***)0)
#define MPI_ERRCODES_IGNORE ((int *)0)


#define MPI_File_c2f(handle) ((MPI_Fint)(intptr_t)(MPI_File)(handle))
#define MPI_File_f2c(handle) ((MPI_File)(intptr_t)(MPI_Fint)(handle))
#define MPI_Win_c2f(handle)  ((MPI_Fint)(intptr_t)(MPI_Win)(handle))
#define MPI_Win_f2c(handle)  ((MPI_Win)(intptr_t)(MPI_Fint)(handle))

int MPI_Comm_spawn(const char *command, char *argv[], int maxprocs, MPI_Info info, int root, MPI_Comm comm,
        MPI_Comm *intercomm, int errcodes[]);
int MPI_Comm_spawn_multiple(int count, char *commands[], char **argvs[], const int maxprocs[], const MPI_Info infos[],
        int root, MPI_Comm comm, MPI_Comm *intercomm, int errcodes[]);

#endif
