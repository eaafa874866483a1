// Routes that keep what is known of each request. Prints `ready PORT` and ends with its input.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

const keptBytes = 64 << 10
const held = 50

var mutex sync.Mutex
var kept [][]byte
var holds = make([][]byte, held)
var next int

// Every page is used, or it would not be resident.
func block() []byte {
	bytes := make([]byte, keptBytes)
	for at := 0; at < keptBytes; at += 4096 {
		bytes[at] = 1
	}
	return bytes
}

func serve(path string) bool {
	mutex.Lock()
	defer mutex.Unlock()
	switch path {
	case "/leak":
		kept = append(kept, block())
	case "/some":
		// Garbage is resident until the collector runs, and then used again.
		if holds[next] == nil {
			holds[next] = block()
		}
		next = (next + 1) % held
	case "/clean":
	default:
		return false
	}
	return true
}

func answer(response http.ResponseWriter, request *http.Request) {
	time.Sleep(time.Millisecond)
	if !serve(request.URL.Path) {
		response.WriteHeader(404)
	}
	time.Sleep(time.Millisecond)
	io.WriteString(response, "done")
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Printf("ready %d\n", listener.Addr().(*net.TCPAddr).Port)
	go http.Serve(listener, http.HandlerFunc(answer))
	io.Copy(io.Discard, os.Stdin)
}
