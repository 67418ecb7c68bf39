"""The studio: a page that plays a trained generator and holds ACM studies, served on this machine.

security    who may ask: Host, token, origin; what every answer says to the browser
model       a snapshot, and pictures of it; one inference at a time, in the order of asking
jobs        what takes longer than a request (projection, walks, studies), one at a time
photograph  uploads: what is looked at before a pixel is decoded
studies     ACM studies in a folder
server      the routes
static/     the page: plain HTML, CSS and JavaScript modules, nothing from elsewhere
"""
