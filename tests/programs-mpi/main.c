/* NPB DT returns 1 from main whatever happened; what it prints says whether it verified. It is compiled with its main
 * renamed, so that a status means something. */
int program_main(int argc, char **argv);

int main(int argc, char **argv)
{
    program_main(argc, argv);
    return 0;
}
