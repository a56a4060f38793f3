// Browsers start no worker for a page that was opened as a file. So that the search works there too, a hidden frame runs
// the worker's script in its place. (The name tells the offline plug-in not to fetch something like it from elsewhere.)
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.early = []
      const frame = document.createElement("iframe")
      frame.hidden = true
      frame.srcdoc = "<!doctype html>"
      frame.addEventListener("load", () => this.begin(frame.contentWindow, url), { once: true })
      document.documentElement.append(frame)
    }

    begin(inside, url) {
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      const script = inside.document.createElement("script")
      script.src = url
      script.addEventListener("load", () => {
        this.postMessage = data => inside.dispatchEvent(new inside.MessageEvent("message", { data }))
        this.early.forEach(this.postMessage)
      })
      inside.document.head.append(script)
    }

    postMessage(data) {
      this.early.push(data)
    }
  }
}
