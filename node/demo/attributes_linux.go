package demo

import "syscall"

// attributes of a child: a process group of its own, so that an interrupt from
// the terminal comes to the demo alone, which then stops its children one way;
// and an end together with the demo, even where that is killed.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
