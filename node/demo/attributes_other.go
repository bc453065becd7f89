//go:build !linux

package demo

import "syscall"

// attributes of a child: a process group of its own, so that an interrupt from
// the terminal comes to the demo alone, which then stops its children one way.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
